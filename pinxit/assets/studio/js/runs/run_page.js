// The page of one run, or of several over each other. The studio and the page in a run's folder
// show the same one.

import { element, replace } from "../dom.js";
import { curves } from "./curves.js";
import { eventList, evaluation, origin } from "./details.js";
import { badge, figures, progress } from "./facts.js";
import { samples } from "./samples.js";
import { colour } from "./series.js";
import { settingsTable } from "./settings_table.js";

/** Returns {node, update(views), close()}. `address(view, grid)` is where a grid's picture is,
 * `actions(view)` returns buttons for a run, and `zoomed(from, to)` hears the steps of a zoom. */
export function runPage({ address, actions = () => null, zoomed }) {
  const head = element("div", { class: "stack" });
  const happened = element("div", { class: "stack" });
  const charts = curves({ zoomed });
  const grids = samples(address);
  const settings = settingsTable();
  const texts = element("div", { class: "stack run-texts" });
  const shown = { texts: "", happened: "" };
  const curvesPart = element("section", { class: "stack", "aria-label": "Curves" }, element("h2", {}, "Curves"), charts.node);
  const picturesPart = element("section", { class: "stack", "aria-label": "Samples" }, element("h2", {}, "Samples"), grids.node);
  const node = element(
    "div",
    { class: "stack run-page" },
    head,
    happened,
    curvesPart,
    picturesPart,
    texts,
    settings.node,
  );

  function update(views) {
    const several = views.length > 1;
    replace(head, views.map((view, i) => headOf(view, several ? i : null)));
    // lists that have not changed stay, so that a reader's place in them stays too
    if (changed("happened", views.map((view) => [view.name, view.events]))) replace(happened, views.map(eventList));
    charts.update(views);
    grids.update(views);
    curvesPart.hidden = views.every((view) => !view.axis.step.length);
    picturesPart.hidden = views.every((view) => !view.samples.length);
    settings.node.hidden = views.every((view) => !Object.keys(view.settings).length);
    if (changed("texts", views.map((view) => [view.name, view.tables, view.protocol, view.summary, view.command, view.settings]))) {
      replace(texts, views.map((view) => evaluation(view, several)), views.map((view) => origin(view, several)));
      settings.update(views);
    }
  }

  function changed(name, value) {
    const text = JSON.stringify(value);
    const is = shown[name] !== text;
    shown[name] = text;
    return is;
  }

  function headOf(view, number) {
    const mark = number === null ? null : element("span", { class: "run-mark", style: { background: colour(number) } });
    const title = number === null ? element("h1", {}, view.name) : element("h2", {}, mark, view.name);
    return element(
      "header",
      { class: "run-head" },
      element("div", { class: "row apart" }, element("div", { class: "row" }, title, badge(view.state)), element("div", { class: "row" }, actions(view))),
      view.words && view.words !== view.state ? element("p", { class: "hint run-words" }, view.words) : null,
      view.state === "finished" || !view.max_steps ? null : progress(view),
      figures(view),
    );
  }

  return {
    node,
    update,
    close() {
      charts.close();
      grids.close();
    },
  };
}
