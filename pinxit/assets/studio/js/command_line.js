// Commands, which are shown or copied.

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

/** Copies a command to the clipboard, and says so or shows it. */
export async function copy(text, say) {
  if (await copied(text)) say("Copied.");
  else say(`Copying is not allowed here. The text is: ${text}`, "error");
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
