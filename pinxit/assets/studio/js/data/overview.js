// The overview of a dataset: what became of the rows, and the scores with the filters' limits.

import { commandLine } from "../command_line.js";
import { element, replace } from "../dom.js";
import { count, percent, plural } from "../quantities.js";
import { scrollBox } from "../scroll_box.js";
import { histogram } from "./histogram.js";

const KINDS = [
  ["kept", "kept"],
  ["dropped", "dropped before their picture was asked for"],
  ["temporary", "failed, but may succeed later"],
  ["failed", "failed for good"],
];

/** Shows the overview in the panel. */
export function overviewPanel(panel, { dataset, choose }) {
  const show = (current) => {
    const open = panel.contains(document.activeElement) ? document.activeElement?.dataset?.status : null;
    replace(panel, element("div", { class: "stack" },
      outcomes(current, choose), retry(current.retry), scores(current)));
    if (open) panel.querySelector(`[data-status="${CSS.escape(open)}"]`)?.focus();
  };
  show(dataset);
  return { update: show };
}

function outcomes(dataset, choose) {
  const { outcomes: all } = dataset;
  if (!all.length) return element("p", { class: "empty" }, "No unit is finished yet. The first rows appear here as soon as one is.");
  const most = Math.max(...all.map((each) => each.rows));
  const rows = all.map((each) => element("tr", {},
    element("th", { scope: "row" }, element("button", {
      type: "button", class: "data-link", dataset: { status: each.status },
      title: `Show the rows with the outcome ${each.status}`,
      onClick: () => (each.status === "ok" ? choose("kept") : choose("rows", { outcome: each.status })),
    }, each.status)),
    element("td", { class: "data-meaning" }, each.meaning,
      each.heals ? element("span", { class: "badge warn", title: "Another attempt may succeed" }, "may succeed later") : null),
    element("td", { class: "number" }, count(each.rows)),
    element("td", { class: "number" }, percent(each.share)),
    element("td", { class: "data-bar", "aria-hidden": "true" },
      element("span", { class: each.kind, style: { width: `${Math.max(1, (100 * each.rows) / most)}%` } }))));
  return element("section", { class: "card stack" },
    element("h2", {}, "What became of the rows"),
    together(all),
    scrollBox("Rows by outcome", element("table", { class: "data-outcomes" },
      element("caption", { class: "visually-hidden" }, "Rows by outcome, the most frequent first"),
      element("thead", {}, element("tr", {},
        element("th", { scope: "col" }, "Outcome"), element("th", { scope: "col" }, "Meaning"),
        element("th", { scope: "col", class: "number" }, "Rows"), element("th", { scope: "col", class: "number" }, "Share"),
        element("td", {}))),
      element("tbody", {}, rows))));
}

/** Returns one bar with all rows, by kind of outcome, and its legend. */
function together(all) {
  const total = all.reduce((sum, each) => sum + each.rows, 0);
  const parts = KINDS.map(([kind, label]) => [kind, label, all.filter((each) => each.kind === kind).reduce((sum, each) => sum + each.rows, 0)])
    .filter(([, , rows]) => rows);
  return element("div", { class: "stack tight" },
    element("div", { class: "data-together", "aria-hidden": "true" },
      parts.map(([kind, , rows]) => element("span", { class: kind, style: { "flex-grow": String(rows) } }))),
    element("ul", { class: "data-legend" }, parts.map(([kind, label, rows]) => element("li", {},
      element("span", { class: `swatch ${kind}`, "aria-hidden": "true" }),
      element("strong", {}, count(rows)), ` ${label} (${percent(rows / total)})`))));
}

function retry(advice) {
  if (!advice) return null;
  return element("section", { class: "card stack tight" },
    element("h2", {}, "Try again what may succeed now"),
    element("p", {}, `${advice.text}.`),
    advice.command ? commandLine(advice.command, "the command that tries again") : element("p", { class: "hint" }, `To try them again, ${advice.hint}.`));
}

function scores(dataset) {
  if (!dataset.scores.length) return null;
  return element("section", { class: "card stack" },
    element("h2", {}, "Scores and sizes of all rows"),
    element("p", { class: "hint" }, "The line is the filter's limit. Rows on the grey side are dropped. "
      + "A row counts in every histogram, whatever it was dropped for."),
    dataset.enlarged ? element("p", { class: "data-note" }, `${plural(dataset.enlarged, "kept picture")} had to be enlarged to the image size.`) : null,
    element("div", { class: "data-histograms" }, dataset.scores.map(histogram)));
}
