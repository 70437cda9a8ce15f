// Several machines side by side.

import { element } from "../dom.js";
import { digits, duration, memory } from "../quantities.js";
import { scrollBox } from "../scroll_box.js";

const STATES = { absent: "not computed yet", waiting: "waiting", computing: "computing …", failed: "not possible", refused: "not possible", cancelled: "cancelled" };

/** Returns a table with one row for each machine. `choose` receives the machine whose plan is to be
 * shown below. */
export function comparison(answers, chosen, choose) {
  const heads = ["Machine", "Fits", "Memory", "Step", "Images/s", "Whole run", "Cost"];
  return element("section", { class: "card stack tight" },
    element("h2", {}, "Machines side by side"),
    scrollBox("Machines side by side", element("table", { class: "plan-compare" },
      element("thead", {}, element("tr", {}, heads.map((name, at) => element("th", { scope: "col", class: at > 1 ? "number" : "" }, name)))),
      element("tbody", {}, answers.map(([target, answer]) => line(target, answer, target === chosen, choose))))),
    element("p", { class: "hint" }, "Choose a machine to see its plan below."));
}

function line(target, answer, isChosen, choose) {
  const name = element("th", { scope: "row" }, element("button", {
    type: "button", class: "data-link", dataset: { target }, "aria-pressed": String(isChosen), onClick: () => choose(target),
  }, target));
  const plan = answer?.state === "done" ? answer.result : null;
  if (!plan) {
    return element("tr", { class: isChosen ? "chosen" : "" }, name, element("td", { colspan: 6, class: "hint" }, answer ? STATES[answer.state] ?? answer.state : "…"));
  }
  const { time } = plan;
  const cells = [
    `${memory(plan.memory.peak)} of ${memory(plan.memory.limit)}`,
    time ? duration(time.middle) : "–",
    time ? digits(time.images_per_second) : "–",
    time ? duration(3600 * time.hours[1]) : "–",
    time && time.cost[1] !== null ? digits(time.cost[1]) : "–",
  ];
  return element("tr", { class: isChosen ? "chosen" : "" }, name,
    element("td", {}, element("span", { class: `badge ${plan.fits ? "good" : "bad"}` }, plan.fits ? "fits" : "does not fit")),
    cells.map((cell) => element("td", { class: "number" }, cell)));
}
