// All rows of the source with their outcomes.

import { element, field } from "../dom.js";
import { count, digits } from "../quantities.js";
import { pages } from "./pages.js";

const SIZE = 50;

/** Shows the rows in the panel; `options.outcome` selects those of one outcome. */
export function rowsPanel(panel, context, options = {}) {
  const { path, dataset } = context;
  const select = element("select", { onChange: () => shown.restart() },
    element("option", { value: "" }, `any outcome (${count(dataset.rows)})`),
    element("option", { value: "rejected" }, "all but kept"),
    dataset.outcomes.map((each) => element("option", { value: each.status }, `${each.status} (${count(each.rows)})`)));
  select.value = options.outcome ?? "";
  const meanings = Object.fromEntries(dataset.outcomes.map((each) => [each.status, each]));
  const shown = pages(panel, {
    api: context.api,
    label: "Search keys, names, addresses and details",
    noun: "rows",
    size: SIZE,
    filters: [field("Outcome", select)],
    empty: "There are no rows.",
    query: ({ start, limit, search }) => `${path}/rows?${new URLSearchParams({ start, limit, search, outcome: select.value })}`,
    show: (rows) => element("ul", { class: "data-list" }, rows.map((row) => line(row, meanings[row.status]))),
  });
  return shown;
}

function line(row, outcome) {
  const kind = row.status === "ok" ? "good" : outcome?.heals ? "warn" : "bad";
  const scores = Object.entries(row.scores).map(([name, value]) => `${name} ${digits(value)}`).join(" · ");
  return element("li", {},
    element("div", {}, element("span", { class: `badge ${kind}`, title: outcome?.meaning ?? "" }, row.status),
      element("p", { class: "hint" }, row.detail || outcome?.meaning || "")),
    element("div", {},
      element("p", { class: "data-path figures" }, row.key),
      row.url || row.name ? element("p", { class: "data-path hint", dir: "auto" }, row.name || row.url) : null,
      scores ? element("p", { class: "hint" }, scores) : null));
}
