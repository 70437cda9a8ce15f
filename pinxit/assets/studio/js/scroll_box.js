// A box that scrolls sideways, also by the keyboard.

import { element } from "./dom.js";

/** Returns a box around something wide. `label` says what is inside. */
export function scrollBox(label, ...children) {
  return element("div", { class: "scroll-x", tabindex: "0", role: "group", "aria-label": label }, children);
}
