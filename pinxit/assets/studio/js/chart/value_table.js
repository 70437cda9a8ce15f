// A chart's values as a table, for screen readers and for copying. It is built when it is opened.

import { element, replace } from "../dom.js";
import { exactText } from "./numbers.js";

const MOST_ROWS = 300;

export function valueTable(title, read) {
  const body = element("div", { class: "chart-table", tabindex: 0, role: "region", "aria-label": `Values: ${title}` });
  const details = element("details", {}, element("summary", {}, "Values"), body);
  const fill = () => {
    if (details.open) replace(body, table(title, read()));
  };
  details.addEventListener("toggle", fill);
  return { node: details, refresh: fill };
}

function table(title, { series, ends, xLabel, xText }) {
  const positions = [...new Set(series.flatMap((one) => one.x))]
    .filter((x) => x >= ends[0] && x <= ends[1])
    .sort((a, b) => a - b);
  const every = Math.ceil(positions.length / MOST_ROWS) || 1;
  const shown = positions.filter((_, i) => i % every === 0 || i === positions.length - 1);
  const lookups = series.map((one) => new Map(one.x.map((x, i) => [x, one.y[i]])));
  const head = [xLabel, ...series.map((one) => one.label)];
  return element(
    "table",
    {},
    element("caption", {}, every > 1 ? `${title}: every ${every}th value` : title),
    element("thead", {}, element("tr", {}, ...head.map((text) => element("th", { scope: "col" }, text)))),
    element(
      "tbody",
      {},
      ...shown.map((x) =>
        element(
          "tr",
          {},
          element("th", { scope: "row" }, xText(x)),
          ...lookups.map((values) =>
            element("td", {}, values.has(x) ? exactText(values.get(x)) : ""),
          ),
        ),
      ),
    ),
  );
}
