// The memory against the batch size, one line for each way of saving memory.

import { drawing, element, replace } from "../dom.js";
import { count, digits, memory } from "../quantities.js";

const LINES = { none: "var(--series-1)", dots: "var(--series-2)", full: "var(--series-3)", offload: "var(--series-5)" };
const HEIGHT = 260;
const LEFT = 52;
const RIGHT = 14;
const TOP = 22;
const BOTTOM = 40;

/** Returns the chart, which is drawn again when its width changes. */
export function batchCurve(plan) {
  const series = Object.entries(plan.peaks).map(([name, peaks]) => [name, Object.entries(peaks).map(([batch, peak]) => [Number(batch), peak]).sort((a, b) => a[0] - b[0])])
    .filter(([, points]) => points.length);
  const box = element("div", { class: "plan-curve" });
  const legend = element("ul", { class: "data-legend" }, series.map(([name]) => element("li", {},
    element("span", { class: "swatch", style: { background: colourOf(name) }, "aria-hidden": "true" }), name)));
  let width = 0;
  new ResizeObserver(() => {
    if (Math.abs(box.clientWidth - width) < 2 || !box.clientWidth) return;
    width = box.clientWidth;
    replace(box, chart(plan, series, width));
  }).observe(box);
  return element("figure", { class: "plan-figure" }, box, legend,
    element("figcaption", { class: "hint" }, "Memory of each device by batch size. Every point was compiled; the star is this plan."));
}

function chart(plan, series, width) {
  const batches = series.flatMap(([, points]) => points.map(([batch]) => batch));
  const limit = plan.memory.limit;
  const low = Math.log2(Math.min(...batches));
  const span = Math.max(1, Math.log2(Math.max(...batches)) - low);
  const highest = Math.max(limit, ...series.flatMap(([, points]) => points.map(([, peak]) => peak)));
  const top = 1.04 * Math.min(highest, 2 * limit); // what is higher lies outside of the drawing
  const x = (batch) => LEFT + ((width - LEFT - RIGHT) * (Math.log2(batch) - low)) / span;
  const y = (size) => TOP + (HEIGHT - TOP - BOTTOM) * (1 - size / top);
  const svg = drawing("svg", { width, height: HEIGHT, viewBox: `0 0 ${width} ${HEIGHT}`, role: "img", "aria-label": described(series, limit) });
  for (const share of [0, 0.5, 1]) {
    svg.append(drawing("line", { x1: LEFT, x2: width - RIGHT, y1: y(limit * share), y2: y(limit * share), class: share === 1 ? "limit" : "rule" }),
      drawing("text", { x: LEFT - 8, y: y(limit * share) + 4, "text-anchor": "end" }, digits((limit * share) / 2 ** 30)));
  }
  svg.append(drawing("text", { x: LEFT, y: 12 }, "GiB"), drawing("text", { x: width - RIGHT, y: y(limit) - 6, "text-anchor": "end", class: "limit-label" }, "usable"));
  const step = Math.max(1, Math.ceil((span * 46) / (width - LEFT - RIGHT)));
  for (let power = Math.ceil(low); power <= low + span; power += step) {
    svg.append(drawing("text", { x: x(2 ** power), y: HEIGHT - BOTTOM + 18, "text-anchor": "middle" }, count(2 ** power)));
  }
  svg.append(drawing("text", { x: (LEFT + width - RIGHT) / 2, y: HEIGHT - 4, "text-anchor": "middle" }, "batch size, all devices together"));
  for (const [name, points] of series) svg.append(...line(name, points, x, y));
  svg.append(drawing("text", { x: x(plan.batch_size), y: y(plan.memory.peak) + 7, "text-anchor": "middle", class: "star" }, "★",
    drawing("title", {}, `this plan: batch ${count(plan.batch_size)}, ${memory(plan.memory.peak)}`)));
  return svg;
}

function colourOf(name) {
  return LINES[name] ?? "var(--series-8)";
}

function line(name, points, x, y) {
  const colour = colourOf(name);
  const path = drawing("polyline", { points: between(points).map(([batch, peak]) => `${x(batch)},${y(peak)}`).join(" "), class: "curve", style: { stroke: colour } });
  const dots = points.map(([batch, peak]) => drawing("circle", { cx: x(batch), cy: y(peak), r: 4, style: { fill: colour } },
    drawing("title", {}, `${name}, batch ${count(batch)}: ${memory(peak)}`)));
  return [path, ...dots];
}

/** Returns more points: memory is linear in the batch, which is not a straight line here. */
function between(points) {
  return points.flatMap(([batch, peak], at) => {
    const [next, after] = points[at + 1] ?? [batch, peak];
    const steps = at + 1 < points.length ? 16 : 1;
    return Array.from({ length: steps }, (_, step) => {
      const middle = batch * (next / batch) ** (step / steps);
      return [middle, peak + ((after - peak) * (middle - batch)) / (next - batch || 1)];
    });
  });
}

function described(series, limit) {
  const words = series.map(([name, points]) => `${name}: ${points.map(([batch, peak]) => `batch ${batch} takes ${memory(peak)}`).join(", ")}`);
  return `Memory by batch size, of ${memory(limit)} usable. ${words.join(". ")}`;
}
