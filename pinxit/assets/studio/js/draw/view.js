// The view draw.

import { element, replace } from "../dom.js";

/** Shows the view. Returns the function that ends it. */
export function mount(root) {
  replace(root, element("h1", {}, "Draw"), element("p", { class: "empty" }, "This view is not built yet."));
  return () => {};
}
