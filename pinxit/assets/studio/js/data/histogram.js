// A histogram of one score, with the limit of its filter.

import { drawing, element } from "../dom.js";
import { count, digits, percent } from "../quantities.js";

const WIDTH = 300;
const HEIGHT = 96;

/** Returns the histogram as a figure with its numbers in words. */
export function histogram(score) {
  const { counts, edges, limit } = score;
  const most = Math.max(1, ...counts);
  const low = edges[0];
  const high = edges[edges.length - 1];
  const x = (value) => (WIDTH * (value - low)) / (high - low);
  const bars = counts.flatMap((rows, bin) => {
    if (!rows) return [];
    const middle = (edges[bin] + edges[bin + 1]) / 2;
    const passes = limit === null || (score.keeps === "above" ? middle >= limit : middle <= limit);
    const height = Math.max(1.5, (HEIGHT * rows) / most);
    const end = bin === counts.length - 1 ? " or more" : ` to ${digits(edges[bin + 1])}`;
    return [drawing("rect", {
      x: x(edges[bin]) + 0.4, y: HEIGHT - height, width: Math.max(0.5, x(edges[bin + 1]) - x(edges[bin]) - 0.8), height,
      class: passes ? "passes" : "dropped",
    }, drawing("title", {}, `${digits(edges[bin])}${end}: ${count(rows)} rows`))];
  });
  const line = limit === null ? null : drawing("line", { x1: x(limit), x2: x(limit), y1: -6, y2: HEIGHT, class: "limit" });
  const words = sentence(score);
  const picture = drawing("svg", { viewBox: `-1 -8 ${WIDTH + 2} ${HEIGHT + 9}`, role: "img", "aria-label": `${score.title}: ${words}` },
    drawing("line", { x1: 0, x2: WIDTH, y1: HEIGHT, y2: HEIGHT, class: "base" }), bars, line);
  return element("figure", { class: "data-histogram" },
    element("figcaption", {}, capital(score.title)), picture,
    element("div", { class: "ticks", "aria-hidden": "true" },
      element("span", {}, digits(low)), element("span", {}, digits((low + high) / 2)), element("span", {}, `${digits(high)}+`)),
    element("p", { class: "hint" }, words));
}

function sentence(score) {
  const about = score.is_exact ? "" : "about ";
  const missing = score.missing ? ` ${count(score.missing)} rows lack it.` : "";
  if (score.limit === null) return `No limit; ${count(score.passed)} rows.${missing}`;
  const total = score.passed + score.rejected || 1;
  const side = score.keeps === "above" ? "At least" : ["watermark", "nsfw"].includes(score.name) ? "Below" : "At most";
  return `${side} ${digits(score.limit)}: ${about}${count(score.passed)} rows pass, ${about}${count(score.rejected)} `
    + `(${percent(score.rejected / total)}) do not.${missing}`;
}

function capital(text) {
  return text[0].toUpperCase() + text.slice(1);
}
