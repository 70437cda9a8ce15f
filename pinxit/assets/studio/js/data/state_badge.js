// The state of a dataset as a badge.

import { element } from "../dom.js";

const STATES = {
  finished: ["good", "finished", "Every unit of the source is done."],
  preparing: ["warn", "being prepared", "Units are still being added. This page refreshes itself."],
  stopped: ["bad", "not finished", "The preparation has stopped. Run the same command again to go on."],
  damaged: ["bad", "damaged", "A file of the dataset cannot be read."],
};

/** Returns the badge of a state. */
export function stateBadge(state) {
  const [kind, text, title] = STATES[state] ?? ["", state, ""];
  return element("span", { class: `badge ${kind}`, title }, text);
}
