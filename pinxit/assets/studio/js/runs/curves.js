// The charts of one or several runs, with one toolbar: axis, smoothing, logarithm, zoom.

import { cursorGroup } from "../chart/cursor_group.js";
import { lineChart } from "../chart/line_chart.js";
import { exactText, timeText } from "../chart/numbers.js";
import { element, newId, replace } from "../dom.js";
import { AXES, chartsOf, marksOf, profilesOf, seriesOf } from "./series.js";

/** Returns {node, update(views), close()}. `zoomed(from, to)` hears the steps of a zoom. */
export function curves({ zoomed = () => {} } = {}) {
  const state = { axis: "step", smoothing: 0, log: false, views: [] };
  const group = cursorGroup();
  const byTime = cursorGroup();
  const charts = new Map();
  const main = element("div", { class: "run-charts" });
  const more = element("div", { class: "run-charts" });
  const folded = element(
    "details",
    { class: "run-more", onToggle: () => draw() },
    element("summary", {}, "More measurements"),
    more,
  );
  const reset = element(
    "button",
    { class: "button", type: "button", onClick: () => group.zoomTo(null), hidden: true },
    "Reset the zoom",
  );
  const share = element("output", { class: "figures" }, "off");
  const smooth = element("input", { type: "range", min: 0, max: 0.99, step: 0.01, value: 0, id: newId("smoothing") });
  smooth.addEventListener("input", () => {
    state.smoothing = Number(smooth.value);
    share.textContent = state.smoothing ? state.smoothing.toFixed(2) : "off";
    draw();
  });
  const log = element("input", { type: "checkbox", id: newId("log") });
  log.addEventListener("change", () => {
    state.log = log.checked;
    draw();
  });
  const toolbar = element(
    "div",
    { class: "toolbar run-toolbar" },
    axisChoice((axis) => {
      state.axis = axis;
      group.moveTo(null);
      group.zoomTo(null);
      draw();
    }),
    element(
      "div",
      { class: "field run-smoothing" },
      element("label", { for: smooth.id }, "Smoothing ", share),
      smooth,
    ),
    element("div", { class: "row run-log" }, log, element("label", { for: log.id }, "Log scale")),
    reset,
    element(
      "p",
      { class: "hint run-help" },
      "Drag across a chart to zoom, double-click to go back. With the keyboard: arrows move, + and − zoom, Escape goes back.",
    ),
  );
  const node = element("div", { class: "stack" }, toolbar, main, folded);
  const leave = group.join((what) => {
    if (what !== "zoom") return;
    reset.hidden = group.zoom === null;
    zoomed(group.zoom && steps(group.zoom));
  });

  // Returns the steps of a zoom on any axis, of the first run.
  function steps([low, high]) {
    if (state.axis === "step") return [Math.floor(low), Math.ceil(high)];
    const { axis } = state.views[0] ?? {};
    const inside = (axis?.[state.axis] ?? []).flatMap((at, i) => (at >= low && at <= high ? [axis.step[i]] : []));
    return inside.length ? [inside[0], inside[inside.length - 1]] : null;
  }

  function draw() {
    const { axis, smoothing, log: isLog, views } = state;
    const options = {
      log: isLog,
      isTime: axis === "seconds",
      xLabel: AXES[axis].label,
      xText: axis === "seconds" ? timeText : exactText,
      markers: marksOf(views, axis),
    };
    const shown = chartsOf(views);
    const wanted = [];
    for (const chart of shown) {
      const own = chartFor(chart.id, { ...chart, group });
      wanted.push([own, chart.more]);
      if (!chart.more || folded.open) own.update(seriesOf(chart, views, { axis, smoothing }), options);
      if (chart.id === "loss_by_t") wanted.push([profile(views, isLog), false]);
    }
    arrange(main, wanted.filter(([, isMore]) => !isMore));
    arrange(more, wanted.filter(([, isMore]) => isMore));
    folded.hidden = !more.children.length;
  }

  function chartFor(id, settings) {
    if (!charts.has(id)) {
      const chart = lineChart({ ...settings, height: id === "loss" ? 280 : 200 });
      chart.card = element("div", { class: `card run-chart ${id === "loss" ? "wide" : ""}`, dataset: { chart: id } }, chart.node);
      charts.set(id, chart);
    }
    return charts.get(id);
  }

  function profile(views, isLog) {
    const chart = chartFor("profile", {
      title: "Loss over noise",
      hint: "The same loss over t, from the first to the newest measurement.",
      group: byTime,
    });
    chart.update(profilesOf(views), {
      log: isLog,
      xLabel: "t",
      xText: exactText,
      markers: [],
      end: 1,
    });
    return chart;
  }

  return {
    node,
    update(views) {
      state.views = views;
      draw();
    },
    close() {
      leave();
      for (const chart of charts.values()) chart.close();
    },
  };
}

// Puts the cards of charts into a place, without touching those that are there already.
function arrange(place, charts) {
  const cards = charts.map(([chart]) => chart.card);
  if (cards.length !== place.children.length || cards.some((card, i) => place.children[i] !== card)) {
    replace(place, cards);
  }
}

function axisChoice(choose) {
  const name = newId("axis");
  const choices = Object.entries(AXES).map(([axis, { title }], i) => {
    const input = element("input", { type: "radio", name, value: axis, checked: i === 0 });
    input.addEventListener("change", () => choose(axis));
    return element("label", { class: "run-choice" }, input, element("span", {}, title));
  });
  return element(
    "fieldset",
    { class: "run-axis" },
    element("legend", {}, "Across"),
    element("div", { class: "run-choices" }, choices),
  );
}
