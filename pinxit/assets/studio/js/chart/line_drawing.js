// Draws the parts of a line chart: grid, ticks, markers and lines.

import { drawing } from "../dom.js";
import { tickText } from "./numbers.js";
import { logTicks, scaleOf, ticksBetween, timeTicks, verticalEnds } from "./scale.js";
import { pathThrough } from "./paths.js";

const TICK_WIDTH = 74;
const TICK_HEIGHT = 38;

export function drawn({ series, options, ends, box, id }) {
  const [low, high] = ends;
  const visible = series.map((one) => span(one.x, low, high));
  const inside = series.flatMap((one, i) => inSpan(one.y, visible[i], one.x, low, high));
  const log = Boolean(options.log) && inside.some((value) => value !== null && value > 0);
  const [bottom, top] = verticalEnds(inside, log);
  const rows = Math.max(2, Math.floor((box.bottom - box.top) / TICK_HEIGHT));
  const vertical = log ? { ticks: logTicks(bottom, top, rows) } : ticksBetween(bottom, top, rows);
  const x = scaleOf(low, high, box.left, box.right);
  const y = scaleOf(bottom, top, box.bottom, box.top, log);
  const columns = Math.max(2, Math.floor((box.right - box.left) / TICK_WIDTH));
  const horizontal = (options.isTime ? timeTicks : ticksBetween)(low, high, columns);
  const clip = drawing(
    "clipPath",
    { id: `${id}-clip` },
    drawing("rect", {
      x: box.left,
      y: box.top - 4,
      width: Math.max(0, box.right - box.left + 5),
      height: box.bottom - box.top + 8,
    }),
  );
  const nodes = [
    drawing("defs", {}, clip),
    ...grid(vertical, y, box),
    ...axis(horizontal, x, box, options),
    ...marks(options.markers ?? [], x, low, high, box),
    drawing(
      "g",
      { "clip-path": `url(#${id}-clip)` },
      ...series.flatMap((one, i) => lines(one, visible[i], x, y, log)),
    ),
  ];
  return { nodes, scales: { x, y, box } };
}

// Returns the first and the last index to draw: those inside, and one more at each end.
function span(x, low, high) {
  let first = x.findIndex((value) => value >= low);
  if (first < 0) first = x.length;
  let last = x.length - 1;
  while (last >= 0 && x[last] > high) last -= 1;
  return [Math.max(0, first - 1), Math.min(x.length - 1, last + 1)];
}

function inSpan(y, [first, last], x, low, high) {
  const values = [];
  for (let i = first; i <= last; i += 1) if (x[i] >= low && x[i] <= high) values.push(y[i]);
  return values;
}

function grid({ ticks, step }, y, box) {
  return ticks.flatMap((tick) => [
    drawing("line", { class: "chart-grid", x1: box.left, x2: box.right, y1: y(tick), y2: y(tick) }),
    drawing(
      "text",
      { class: "chart-tick", x: box.left - 8, y: y(tick) + 4, "text-anchor": "end" },
      tickText(tick, step ?? tick),
    ),
  ]);
}

function axis({ ticks, step }, x, box, options) {
  const base = drawing("line", {
    class: "chart-base",
    x1: box.left,
    x2: box.right,
    y1: box.bottom,
    y2: box.bottom,
  });
  return [
    base,
    ...ticks.map((tick) => {
      const at = x(tick);
      const edge = at > box.right - 18 ? "end" : at < box.left + 6 ? "start" : "middle";
      const text = options.isTime ? options.xText(tick) : tickText(tick, step);
      return drawing(
        "text",
        {
          class: "chart-tick across",
          x: edge === "end" ? Math.min(at + RIGHT_ROOM, box.width) : at,
          y: box.bottom + 17,
          "text-anchor": edge,
        },
        text,
      );
    }),
  ];
}

const RIGHT_ROOM = 12;

function marks(markers, x, low, high, box) {
  return markers
    .filter((one) => one.x >= low && one.x <= high)
    .map((one) => {
      const at = x(one.x);
      const head = { warning: "M-5,0L5,0L0,8Z", change: "M0,-1L5,4L0,9L-5,4Z" }[one.kind];
      return drawing(
        "g",
        { class: `chart-mark ${one.kind}` },
        drawing("title", {}, one.text),
        drawing("line", { x1: at, x2: at, y1: box.top, y2: box.bottom }),
        head
          ? drawing("path", { d: head, transform: `translate(${at} ${box.top - 6})` })
          : drawing("circle", { cx: at, cy: box.top - 2, r: 3.5 }),
      );
    });
}

function lines(one, [first, last], x, y, log) {
  const through = (values) => {
    const points = [];
    for (let i = first; i <= last; i += 1) {
      const value = values[i];
      const gap = value === null || value === undefined || (log && value <= 0);
      points.push(gap ? null : [x(one.x[i]), y(value)]);
    }
    return points;
  };
  const raw = through(one.y);
  const nodes = [path(raw, one, one.line ? "chart-line faint" : "chart-line")];
  if (one.line) nodes.push(path(through(one.line), one, "chart-line"));
  const known = raw.filter((point) => point !== null);
  if (one.points || known.length === 1) {
    const r = known.length > 60 ? 1.5 : 2.5;
    nodes.push(...known.map(([cx, cy]) => drawing("circle", { class: "chart-dot", cx, cy, r, style: { fill: one.color } })));
  }
  return nodes;
}

function path(points, one, name) {
  return drawing("path", { class: name, d: pathThrough(points), "stroke-dasharray": one.dash, style: { stroke: one.color } });
}
