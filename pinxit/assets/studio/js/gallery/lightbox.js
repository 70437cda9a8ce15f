// A picture in full, with its recipe and what can be done with it.

import { copy } from "../command_line.js";
import { element, replace } from "../dom.js";
import { moment } from "../draw/words.js";
import { describe } from "./gallery.js";
import { sentence, settingsList } from "./recipe_words.js";

/** Returns the lightbox. The `on...` functions receive the recipe or the entry. */
export function lightbox({ api, say, onAgain, onVary, onSettings, onStart, onCopy, onDeleted }) {
  const image = element("img", { class: "shown", alt: "" });
  const frame = element("div", { class: "frame fit", tabindex: 0, role: "group", "aria-label": "The picture. Arrow keys show the previous and the next one." }, image);
  const about = element("div", { class: "about stack" });
  const count = element("span", { class: "figures hint" });
  const previous = button("Previous picture", () => move(-1), "‹", "round");
  const next = button("Next picture", () => move(1), "›", "round");
  const fit = button("Show the picture at its own size, pixel by pixel", toggle, "1:1");
  const close = button("Close", () => dialog.close(), "×", "round");
  const dialog = element("dialog", { class: "lightbox", "aria-label": "Picture" },
    element("div", { class: "lightbox-bar" }, previous, next, count, element("span", { class: "space" }), fit, close),
    element("div", { class: "lightbox-body" }, frame, about));
  let entries = [];
  let index = 0;
  let opener = null;
  let source = null;

  function button(label, act, text = label, kind = "") {
    return element("button", { type: "button", class: `button ${kind}`, "aria-label": text === label ? null : label, title: text === label ? null : label, onClick: act }, text);
  }

  function toggle() {
    const exact = frame.classList.toggle("exact");
    frame.classList.toggle("fit", !exact);
    fit.textContent = exact ? "Fit" : "1:1";
    fit.setAttribute("aria-label", exact ? "Fit the picture into the window" : "Show the picture at its own size, pixel by pixel");
    fit.title = fit.getAttribute("aria-label");
  }

  async function move(by) {
    if (index + by >= entries.length && source) await source.loadMore();
    const target = index + by;
    if (target < 0 || target >= entries.length) return;
    index = target;
    show();
  }

  function show() {
    const entry = entries[index];
    const small = Math.max(entry.width, entry.height) < 400;
    image.classList.toggle("pixels", small);
    Object.assign(image, { src: api.address(entry.url), alt: describe(entry), width: entry.width, height: entry.height });
    count.textContent = `${index + 1} of ${entries.length}`;
    previous.disabled = index === 0;
    next.disabled = index === entries.length - 1 && !source?.node.querySelector(".more-pictures:not([hidden])");
    replace(about, entry.recipe ? ofPicture(entry) : ofOther(entry), downloads(entry), removal(entry));
  }

  function act(run, value) {
    return () => {
      opener = null;
      dialog.close();
      Promise.resolve(run(value)).catch((error) => say(error.message, "error"));
    };
  }

  function ofPicture(entry) {
    const { recipe } = entry;
    return [
      element("p", { class: "prompt" }, recipe.prompt || "(no prompt)"),
      recipe.negative_prompt ? element("p", { class: "hint" }, `Without: ${recipe.negative_prompt}`) : null,
      element("p", {}, sentence(recipe), entry.created ? ` ${capital(moment(entry.created))}.` : ""),
      element("div", { class: "row" },
        button("Draw again", act(onAgain, recipe), "Draw again", "primary"),
        button("Vary the seed", act(onVary, recipe)),
        button("Use these settings", act(onSettings, recipe)),
        button("Start from this picture", act(onStart, entry)),
        button("Copy the command", () => onCopy(recipe))),
      element("details", { class: "more", open: true }, element("summary", {}, "All settings"), settingsList(recipe)),
    ];
  }

  function ofOther(entry) {
    if (!entry.grid) {
      return [element("p", {}, `${entry.name} has no recipe of Pinxit.`),
        element("div", { class: "row" }, button("Start from this picture", act(onStart, entry)))];
    }
    const { command = "", axes = [], prompt } = entry.grid;
    return [
      element("p", { class: "prompt" }, prompt ?? "Several prompts"),
      element("p", {}, `A comparison over ${axes.map((axis) => axis.name).join(", ")}.`),
      element("pre", { tabindex: 0 }, command),
      element("div", { class: "row" }, button("Copy the command", () => copy(command, say))),
    ];
  }

  function downloads(entry) {
    const formats = entry.recipe && entry.version ? [["png", "PNG"], ["webp", "WebP"], ["jpeg", "JPEG"]] : [["", "the file"]];
    const links = formats.map(([format, label]) => {
      const query = format ? `?format=${format}` : "";
      const name = format ? entry.name.replace(/\.\w+$/, format === "jpeg" ? ".jpg" : `.${format}`) : entry.name;
      return element("a", { class: "button", href: api.address(entry.url.replace(/\?.*$/, "") + query), download: name }, label);
    });
    return element("div", { class: "stack tight" },
      element("div", { class: "row" }, element("span", { class: "label" }, "Download"), links),
      entry.recipe ? element("span", { class: "hint" }, "Each file has the recipe inside.") : null);
  }

  function removal(entry) {
    return entry.version ? element("div", { class: "row" }, button("Delete", () => remove(entry), "Delete", "danger")) : null;
  }

  async function remove(entry) {
    try {
      await api.remove(`/studio/gallery/${encodeURIComponent(entry.name)}`);
    } catch (error) {
      if (error.status !== 404) return say(error.message, "error");
    }
    onDeleted(entry);
    offerUndo(entry);
    if (entries.length === 0) return dialog.close();
    index = Math.min(index, entries.length - 1);
    show();
  }

  /** Shows for some seconds that a picture was deleted, with a button that puts it back. */
  function offerUndo(entry) {
    const undo = element("button", { type: "button", class: "button small" }, "Undo");
    const message = element("div", { class: "message undo", role: "status" }, element("span", {}, "The picture was deleted."), undo);
    const gone = setTimeout(() => message.remove(), 15000);
    undo.addEventListener("click", async () => {
      clearTimeout(gone);
      message.remove();
      try {
        await api.post(`/studio/gallery/${encodeURIComponent(entry.name)}/restore`);
        await source?.refresh();
        say("The picture is back.");
      } catch (error) {
        say(error.message, "error");
      }
    });
    (dialog.open ? dialog : document.body).querySelector(".message.undo")?.remove();
    (dialog.open ? dialog.querySelector(".lightbox-bar") : document.getElementById("messages")).append(message);
    undo.focus();
  }

  dialog.addEventListener("keydown", (event) => {
    if (event.altKey || event.ctrlKey || event.metaKey) return;
    const scrolls = frame.classList.contains("exact") && document.activeElement === frame;
    if (event.key === "ArrowLeft" && !scrolls) move(-1);
    else if (event.key === "ArrowRight" && !scrolls) move(1);
    else if (event.key === "Home") move(-index);
    else return;
    event.preventDefault();
  });
  dialog.addEventListener("click", (event) => {
    if (event.target === dialog) dialog.close();
  });
  image.addEventListener("dblclick", toggle);
  dialog.addEventListener("close", () => {
    const message = dialog.querySelector(".message.undo");
    if (message) document.getElementById("messages").append(message);
    if (opener === null) return;
    const seen = entries[index];
    if (opener.isConnected && !opener.classList.contains("thumbnail")) opener.focus();
    else source?.focus(seen);
  });
  document.body.append(dialog);
  return {
    open(list, at, from, pictures) {
      entries = list;
      index = at;
      opener = from;
      source = pictures;
      show();
      dialog.showModal();
      frame.focus();
    },
    end() {
      dialog.remove();
    },
  };
}

function capital(text) {
  return text.charAt(0).toUpperCase() + text.slice(1);
}
