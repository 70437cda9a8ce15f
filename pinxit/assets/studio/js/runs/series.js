// Turns the data of runs into the series of charts.

import { smoothed } from "../chart/smoothing.js";

export const AXES = {
  step: { label: "step", title: "Steps" },
  seconds: { label: "time", title: "Training time" },
  images: { label: "images", title: "Images" },
};
const DASHES = [null, "7 4", "2 3", "9 3 2 3", "12 4", "4 2", "1 4", "14 3 3 3"];

/** Returns the colour of the number of a run or of a curve. */
export function colour(number) {
  return `var(--series-${(number % 8) + 1})`;
}

/** Returns the colour of one of several ordered curves. */
function shade(number, count) {
  const share = count > 1 ? Math.round((100 * number) / (count - 1)) : 0;
  return `color-mix(in oklab, var(--series-2) ${100 - share}%, var(--series-1) ${share}%)`;
}

/** Returns the charts of several runs: each chart once, in the order of the first run that has it,
 * with all curves that any run has. */
export function chartsOf(views) {
  const charts = new Map();
  for (const view of views) {
    for (const chart of view.charts) {
      const known = charts.get(chart.id);
      if (!known) charts.set(chart.id, { ...chart, curves: [...chart.curves] });
      else {
        const names = new Set(known.curves.map((curve) => curve.name));
        known.curves.push(...chart.curves.filter((curve) => !names.has(curve.name)));
      }
    }
  }
  return [...charts.values()];
}

/** Returns the series of a chart. With several runs a colour is a run and a dash a curve, else a
 * colour is a curve. */
export function seriesOf(chart, views, { axis, smoothing }) {
  const several = views.length > 1;
  const curves = several && chart.ordered ? ends(chart.curves) : chart.curves;
  const series = [];
  for (const [number, view] of views.entries()) {
    for (const [i, { name, label }] of curves.entries()) {
      const curve = view.curves[name];
      if (!curve) continue;
      // an amount of noise that no row of a step had is no gap
      const at = curve.values.flatMap((value, index) => (chart.ordered && value === null ? [] : [index]));
      const x = at.map((index) => view.axis[axis][curve.at[index]]);
      const y = at.map((index) => curve.values[index]);
      series.push({
        key: `${number}/${name}`,
        label: several ? (curves.length > 1 ? `${view.name}: ${label}` : view.name) : label,
        color: several ? colour(number) : chart.ordered ? shade(i, curves.length) : colour(i),
        dash: several ? DASHES[i % DASHES.length] : null,
        points: chart.points,
        x,
        y,
        line: smoothing > 0 && chart.noisy ? smoothed(y, smoothing) : null,
      });
    }
  }
  return series;
}

function ends(curves) {
  const chosen = [0, Math.floor((curves.length - 1) / 2), curves.length - 1];
  return [...new Set(chosen)].map((index) => curves[index]);
}

/** Returns the marks of warnings, changes and resumes on an axis. */
export function marksOf(views, axis) {
  const several = views.length > 1;
  return views.flatMap((view) =>
    view.events.map((event) => ({
      kind: event.kind,
      x: positionAt(view, event.step, axis),
      text: several ? `${view.name}: ${event.text}` : event.text,
    })),
  );
}

/** Returns the position of a step on an axis: that of the newest row up to it. */
function positionAt(view, step, axis) {
  if (axis === "step") return step;
  let position = 0;
  for (const [i, at] of view.axis.step.entries()) {
    if (at > step) break;
    position = view.axis[axis][i];
  }
  return position;
}

/** Returns the series of the loss over the amount of noise, for a few steps of each run. */
export function profilesOf(views) {
  const several = views.length > 1;
  return views.flatMap((view, number) => {
    const profiles = several ? view.profiles.slice(-1) : view.profiles;
    return profiles.map((profile, i) => {
      const count = profile.values.length;
      const known = profile.values.flatMap((value, bin) => (value === null ? [] : [bin]));
      return {
        key: `${number}/${i}`,
        label: several ? `${view.name}, step ${profile.step}` : `step ${profile.step}`,
        color: several ? colour(number) : `color-mix(in oklab, var(--series-1) ${20 + (80 * (i + 1)) / profiles.length}%, var(--card))`,
        dash: null,
        points: i === profiles.length - 1,
        x: known.map((bin) => (bin + 0.5) / count),
        y: known.map((bin) => profile.values[bin]),
        line: null,
      };
    });
  });
}
