// Figures with their names, side by side.

import { element } from "./dom.js";

/** Returns a list of facts, each with its name, its value and more words or none. */
export function factList(facts) {
  return element("dl", { class: "data-facts" }, facts.map(([name, value, more]) => element("div", {},
    element("dt", {}, name), element("dd", {}, element("strong", {}, value), more ? element("span", { class: "hint" }, more) : null))));
}
