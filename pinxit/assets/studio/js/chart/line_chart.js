// A chart of lines over one axis that it shares with others: cursor, zoom, markers and legend.
//
// A series is {key, label, color, dash, points, x, y, line}: `y` has the exact values, of which null
// is a gap, and `line` the smoothed ones or null. x is sorted.

import { drawing, element, newId, replace } from "../dom.js";
import { nearest } from "./cursor_group.js";
import { exactText } from "./numbers.js";
import { drawn } from "./line_drawing.js";
import { valueTable } from "./value_table.js";

const HEIGHT = 200;
const LEFT = 54;
const RIGHT = 14;
const FEWEST_PIXELS = 6;

export function lineChart({ title, hint = "", unit = "", group, height = HEIGHT }) {
  const state = { series: [], options: {}, width: 0, scales: null, drag: null };
  const id = newId("chart");
  const picture = drawing("svg", {
    height, class: "chart-picture", id, tabindex: 0, role: "slider", "aria-orientation": "horizontal",
    "aria-label": `${title}: move through the values`,
  });
  const where = element("span", { class: "chart-where" });
  const legend = element("ul", { class: "chart-legend" });
  const note = element("p", { class: "chart-note", hidden: true });
  const values = valueTable(title, () => ({
    series: state.series,
    ends: ends(),
    xLabel: state.options.xLabel,
    xText: state.options.xText,
  }));
  const node = element(
    "figure",
    { class: "chart" },
    element(
      "figcaption",
      {},
      element("span", { class: "chart-title" }, title),
      unit ? element("span", { class: "chart-unit" }, unit) : null,
      where,
    ),
    picture,
    legend,
    note,
    hint ? element("p", { class: "chart-hint" }, hint) : null,
    values.node,
  );

  // The ends of the horizontal axis: from 0 to the last value, unless it is zoomed.
  function ends() {
    if (group.zoom) return group.zoom;
    let last = 0;
    for (const one of state.series) last = Math.max(last, one.x[one.x.length - 1] ?? 0);
    return [0, state.options.end ?? (last || 1)];
  }

  function draw() {
    const width = Math.floor(node.clientWidth);
    if (!width || !state.options.xText) return; // it is not shown yet
    state.width = width;
    picture.setAttribute("width", width);
    picture.setAttribute("viewBox", `0 0 ${width} ${height}`);
    const box = { left: LEFT, right: width - RIGHT, top: 10, bottom: height - 24, width, height };
    const result = drawn({ series: state.series, options: state.options, ends: ends(), box, id });
    state.scales = result.scales;
    replace(picture, ...result.nodes, (state.cursor = drawing("g", { class: "chart-cursor" })));
    state.selection = picture.appendChild(drawing("rect", { class: "chart-selection", y: box.top, height: box.bottom - box.top }));
    point();
    values.refresh();
  }

  // Draws the cursor, and shows the values there, or the newest ones without a cursor.
  function point() {
    if (!state.scales) return;
    const { x, y, box } = state.scales;
    const at = group.cursor;
    const [low, high] = ends();
    const shown = at !== null && at >= low && at <= high;
    const found = state.series.map((one) => valueAt(one, shown ? at : high));
    replace(
      state.cursor,
      shown ? drawing("line", { x1: x(at), x2: x(at), y1: box.top, y2: box.bottom }) : null,
      ...found.map((one, i) => {
        const value = state.series[i].line?.[one.index] ?? one.value;
        if (!shown || value === null || (state.options.log && value <= 0)) return null;
        if (one.x < low || one.x > high) return null;
        return drawing("circle", { cx: x(one.x), cy: y(value), r: 3.5, style: { fill: state.series[i].color } });
      }),
    );
    const text = shown ? state.options.xText(at) : "";
    where.textContent = shown ? `${state.options.xLabel} ${text}` : "newest";
    showValues(found, shown ? at : null);
    showNote(shown ? at : null);
    picture.setAttribute("aria-valuemin", low);
    picture.setAttribute("aria-valuemax", high);
    picture.setAttribute("aria-valuenow", shown ? at : high);
    picture.setAttribute("aria-valuetext", spoken(found, shown ? text : "newest"));
  }

  function spoken(found, text) {
    const parts = found.map((one, i) => `${state.series[i].label} ${exactText(one.value)}`);
    return `${state.options.xLabel ?? ""} ${text}: ${parts.slice(0, 12).join(", ")}`;
  }

  function showValues(found, at) {
    for (const [i, item] of [...legend.children].entries()) {
      const one = found[i];
      const box = item.lastChild;
      const elsewhere = at !== null && one.index >= 0 && one.x !== at;
      box.textContent = exactText(one.value);
      box.dataset.value = one.value === null ? "" : String(one.value);
      box.title = elsewhere
        ? `measured at ${state.options.xLabel} ${state.options.xText(one.x)}`
        : "";
      item.classList.toggle("elsewhere", elsewhere && far(one.x, at));
    }
  }

  // Whether two positions are more than a few pixels apart.
  function far(a, b) {
    return Math.abs(state.scales.x(a) - state.scales.x(b)) > FEWEST_PIXELS;
  }

  function showNote(at) {
    const near = at === null ? [] : (state.options.markers ?? []).filter((one) => !far(one.x, at));
    note.hidden = !near.length;
    note.textContent = near.map((one) => one.text).join(" · ");
  }

  function makeLegend() {
    const longest = Math.max(0, ...state.series.map((one) => one.label.length));
    legend.style.setProperty("--legend-width", `${Math.min(320, 112 + 6.5 * longest)}px`);
    replace(
      legend,
      ...state.series.map((one) => {
        const line = drawing("line", { x1: 0, x2: 18, y1: 5, y2: 5, "stroke-dasharray": one.dash, style: { stroke: one.color } });
        const sample = drawing("svg", { width: 18, height: 10, "aria-hidden": "true" }, line);
        const output = element("output", { class: "chart-value", "aria-live": "off" });
        return element("li", {}, sample, element("span", {}, one.label), output);
      }),
    );
  }

  // All positions of the chart's values inside the axis, in order.
  function positions() {
    const [low, high] = ends();
    const all = [...new Set(state.series.flatMap((one) => one.x))];
    return all.filter((x) => x >= low && x <= high).sort((a, b) => a - b);
  }

  function place(event) {
    const box = picture.getBoundingClientRect();
    const pixel = ((event.clientX - box.left) / box.width) * state.width;
    return Math.min(state.scales.box.right, Math.max(state.scales.box.left, pixel));
  }

  function select(pixel) {
    const from = Math.min(pixel, state.drag ?? pixel);
    state.selection.setAttribute("x", from);
    state.selection.setAttribute("width", Math.abs(pixel - (state.drag ?? pixel)));
  }

  picture.addEventListener("pointermove", (event) => {
    if (!state.scales) return;
    const pixel = place(event);
    if (state.drag !== null) select(pixel);
    const known = positions();
    const index = nearest(known, state.scales.x.inverse(pixel));
    if (index >= 0) group.moveTo(known[index]);
  });
  picture.addEventListener("pointerdown", (event) => {
    if (event.button !== 0 || event.pointerType === "touch" || !state.scales) return;
    state.drag = place(event);
    picture.setPointerCapture(event.pointerId);
  });
  picture.addEventListener("pointerup", (event) => {
    if (state.drag === null) return;
    const pixels = [state.drag, place(event)].sort((a, b) => a - b);
    state.drag = null;
    select(0);
    state.selection.setAttribute("width", 0);
    if (pixels[1] - pixels[0] >= FEWEST_PIXELS) group.zoomTo(pixels.map(state.scales.x.inverse));
  });
  picture.addEventListener("pointercancel", () => {
    state.drag = null;
    state.selection?.setAttribute("width", 0);
  });
  picture.addEventListener("pointerleave", () => {
    if (state.drag === null && document.activeElement !== picture) group.moveTo(null);
  });
  picture.addEventListener("dblclick", () => group.zoomTo(null));
  picture.addEventListener("blur", () => group.moveTo(null));
  picture.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || !state.scales) return;
    if (pressed(event)) event.preventDefault();
  });

  function pressed(event) {
    const known = positions();
    const last = known.length - 1;
    const now = group.cursor === null ? last + 1 : nearest(known, group.cursor);
    const far = event.shiftKey ? 10 : 1;
    const moves = { ArrowLeft: now - far, ArrowRight: now + far, Home: 0, End: last };
    moves.ArrowDown = moves.ArrowLeft;
    moves.ArrowUp = moves.ArrowRight;
    if (event.key in moves) {
      if (last >= 0) group.moveTo(known[Math.min(last, Math.max(0, moves[event.key]))]);
    } else if (event.key === "+" || event.key === "=") zoomAround(0.5);
    else if (event.key === "-") zoomAround(2);
    else if (event.key === "Escape" && (group.zoom || group.cursor !== null)) {
      group.zoomTo(null);
      group.moveTo(null);
    } else return false;
    return true;
  }

  function zoomAround(factor) {
    const [low, high] = ends();
    const middle = group.cursor ?? (low + high) / 2;
    const zoom = group.zoom;
    group.zoom = null;
    const whole = ends();
    group.zoom = zoom;
    const next = [
      Math.max(whole[0], middle - (middle - low) * factor),
      Math.min(whole[1], middle + (high - middle) * factor),
    ];
    group.zoomTo(next[0] <= whole[0] && next[1] >= whole[1] ? null : next);
  }

  const leave = group.join((what) => (what === "cursor" ? point() : draw()));
  const observer = new ResizeObserver(() => {
    if (Math.floor(node.clientWidth) !== state.width) draw();
  });
  observer.observe(node);
  return {
    node,
    update(series, options) {
      const named = (all) => all.map((one) => `${one.key}|${one.label}|${one.color}`).join("\n");
      const before = named(state.series);
      state.series = series;
      state.options = options;
      if (before !== named(series) || legend.children.length !== series.length) makeLegend();
      draw();
    },
    close() {
      leave();
      observer.disconnect();
    },
  };
}

// Returns the value of a series that is nearest to a position, its index and its own position.
function valueAt(series, position) {
  const index = nearest(series.x, position);
  if (index < 0) return { index, x: position, value: null };
  return { index, x: series.x[index], value: series.y[index] };
}
