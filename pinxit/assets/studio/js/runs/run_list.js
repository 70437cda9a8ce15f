// The list of runs, with a choice of those to lay over each other.

import { timeText, trimmed, withThousands } from "../chart/numbers.js";
import { element, replace } from "../dom.js";
import { badge } from "./facts.js";
import { cut } from "./sample_grid.js";

const EVERY = 3000; // milliseconds between two looks at the list

/** Returns {node, close()}. */
export function runList({ api, navigate, loaded }) {
  const chosen = new Set();
  const rows = element("ul", { class: "run-list" });
  const compare = element("button", { class: "button", type: "button", disabled: true, onClick: open }, "Show together");
  const hint = element("span", { class: "hint" }, "Choose two or more runs to lay them over each other.");
  const bar = element("div", { class: "row" }, compare, hint);
  const problem = element("p", { class: "error", role: "alert", hidden: true });
  const node = element("section", { class: "stack", "aria-label": "All runs" }, problem, bar, rows);
  let shown = "";
  let timer = null;
  let closed = false;

  function open() {
    navigate(`runs/${[...chosen].map(encodeURIComponent).join("/")}`);
  }

  async function read() {
    clearTimeout(timer);
    try {
      const data = document.hidden && shown ? null : await api.get("studio/runs");
      if (closed) return;
      problem.hidden = true;
      if (data) show(data);
    } catch (error) {
      problem.hidden = false;
      problem.textContent = error.message;
    }
    if (!closed) timer = setTimeout(read, EVERY);
  }

  function show(data) {
    loaded(data);
    const text = JSON.stringify(data.runs);
    if (text === shown) return;
    shown = text;
    const focused = document.activeElement?.dataset?.run;
    for (const name of chosen) if (!data.runs.some((run) => run.name === name)) chosen.delete(name);
    bar.hidden = data.runs.length < 2;
    replace(rows, data.runs.map(entry));
    if (focused) rows.querySelector(`[data-run="${CSS.escape(focused)}"]`)?.focus();
    if (!data.runs.length) replace(rows, element("li", { class: "empty" }, "No runs yet. Start one below: a few minutes on a plain computer are enough for the first pictures."));
    count();
  }

  function count() {
    compare.disabled = chosen.size < 2;
    compare.textContent = chosen.size < 2 ? "Show together" : `Show ${chosen.size} together`;
  }

  function entry(run) {
    const box = element("input", { type: "checkbox", "aria-label": `Choose ${run.name}`, checked: chosen.has(run.name), dataset: { run: `box ${run.name}` } });
    box.addEventListener("change", () => {
      if (box.checked) chosen.add(run.name);
      else chosen.delete(run.name);
      count();
    });
    return element(
      "li",
      { class: "card run-entry" },
      box,
      element("div", { class: "run-thumb" }, run.sample ? thumbnail(run) : null),
      element(
        "div",
        { class: "run-entry-text" },
        element("div", { class: "row" }, element("a", { href: `#/runs/${encodeURIComponent(run.name)}`, dataset: { run: `link ${run.name}` } }, run.name), badge(run.state)),
        element("p", { class: "hint" }, words(run)),
        ["running", "starting", "stopping"].includes(run.state) && run.max_steps
          ? element("progress", { max: Math.max(1, run.max_steps), value: run.step, "aria-label": `Progress of ${run.name}` })
          : null,
      ),
    );
  }

  function thumbnail({ name, sample }) {
    const image = new Image();
    image.alt = "";
    image.src = api.address(`studio/runs/${encodeURIComponent(name)}/samples/${sample.file}?size=${sample.bytes}-${sample.changed}`);
    return sample.cells.length ? cut(image, sample.cells[0]) : image;
  }

  read();
  return {
    node,
    close() {
      closed = true;
      clearTimeout(timer);
    },
  };
}

// Says in a line where a run is.
function words(run) {
  const parts = [];
  if (["starting", "failed", "diverged", "stopping"].includes(run.state)) parts.push(run.words);
  if (run.max_steps) parts.push(`${withThousands(String(run.step))} of ${withThousands(String(run.max_steps))} steps`);
  if (run.seconds_left !== null) parts.push(`about ${timeText(run.seconds_left)} left`);
  if (run.validation_loss !== null) parts.push(`validation loss ${trimmed(run.validation_loss, 4)}`);
  else if (run.loss !== null) parts.push(`loss ${trimmed(run.loss, 4)}`);
  if (run.accuracy !== null) parts.push(`prompt accuracy ${(100 * run.accuracy).toFixed(1)} %`);
  if (run.dataset) parts.push(run.dataset);
  return parts.join(" · ");
}
