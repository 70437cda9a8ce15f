// A command that is shown to be copied.

import { element } from "./dom.js";

/** Returns a command with a button that copies it. */
export function commandLine(text, label = "the command") {
  const code = element("code", {}, text);
  const button = element("button", { class: "button copy", type: "button", "aria-label": `Copy ${label}` }, "Copy");
  button.addEventListener("click", async () => {
    button.textContent = (await copied(text)) ? "Copied" : "Select and copy";
    if (button.textContent !== "Copied") select(code);
    setTimeout(() => { button.textContent = "Copy"; }, 2000);
  });
  const box = element("pre", { tabindex: "0", role: "group", "aria-label": label }, code);
  return element("div", { class: "command-line" }, box, button);
}

async function copied(text) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    return false; // no permission, or the page is not served from this machine
  }
}

function select(node) {
  const range = document.createRange();
  range.selectNodeContents(node);
  const selection = getSelection();
  selection.removeAllRanges();
  selection.addRange(range);
}
