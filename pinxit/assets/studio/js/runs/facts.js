// The head of a run: its name, state, progress and main figures.

import { exactText, timeText, trimmed, withThousands } from "../chart/numbers.js";
import { element } from "../dom.js";

const BADGES = { running: "good", finished: "", starting: "good", diverged: "bad", failed: "bad", stopped: "warn", interrupted: "warn" };

/** Returns the badge of a state. */
export function badge(state) {
  return element("span", { class: `badge ${BADGES[state] ?? ""}` }, state);
}

/** Returns the newest value of a curve, or null. */
export function newest(view, name) {
  const values = view.curves[name]?.values.filter((value) => value !== null) ?? [];
  return values.length ? values[values.length - 1] : null;
}

/** Returns the progress of a run with the time that is left. */
export function progress(view) {
  const label = `${withThousands(String(view.step))} of ${withThousands(String(view.max_steps))} steps`;
  const left = view.seconds_left === null || view.seconds_left === undefined ? "" : ` · about ${timeText(view.seconds_left)} left`;
  return element(
    "div",
    { class: "run-progress" },
    element("progress", { max: Math.max(1, view.max_steps), value: Math.min(view.step, view.max_steps), "aria-label": `Progress of ${view.name}` }),
    element("span", { class: "hint" }, label + left),
  );
}

/** Returns the main figures of a run. */
export function figures(view) {
  const losses = Object.keys(view.curves).filter((name) => name.startsWith("validation_loss/"));
  const best = losses.map((name) => newest(view, name)).filter((value) => value !== null);
  const speed = newest(view, "images_per_second");
  const memory = newest(view, "memory_gb");
  const facts = [
    ["Training loss", number(newest(view, "loss"))],
    ["Validation loss", best.length ? number(Math.min(...best)) : null],
    ["Prompt accuracy", percent(newest(view, "prompts/accuracy/mean"))],
    ["Speed", speed === null ? null : `${trimmed(speed, 3)} images/s`],
    ["Memory", memory === null ? null : `${trimmed(memory, 3)} GB`],
    ["Training time", view.seconds ? timeText(view.seconds) : null],
  ];
  return element(
    "dl",
    { class: "run-figures" },
    facts.filter(([, text]) => text !== null).map(([name, text]) => element("div", {}, element("dt", {}, name), element("dd", {}, text))),
  );
}

function number(value) {
  return value === null ? null : exactText(Number(value.toPrecision(4)));
}

function percent(value) {
  return value === null ? null : `${(100 * value).toFixed(1)} %`;
}
