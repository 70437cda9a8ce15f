// The settings of one run, with a filter, or those in which several runs differ.

import { element, field, replace } from "../dom.js";

/** Returns {node, update(views)}. */
export function settingsTable() {
  const state = { views: [] };
  const search = element("input", { type: "search", placeholder: "learning_rate", autocomplete: "off" });
  const only = element("input", { type: "checkbox", id: "only-differences", checked: true });
  const choice = element("div", { class: "row" }, only, element("label", { for: only.id }, "Only differences"));
  const place = element("div", { class: "scroll-x", tabindex: 0, role: "region", "aria-label": "Settings" });
  const count = element("p", { class: "hint", role: "status" });
  const node = element(
    "section",
    { class: "stack" },
    element("h2", {}, "Settings"),
    element("div", { class: "toolbar" }, field("Find a setting", search), choice),
    count,
    place,
  );
  search.addEventListener("input", draw);
  only.addEventListener("change", draw);

  function draw() {
    const { views } = state;
    const several = views.length > 1;
    const names = [...new Set(views.flatMap((view) => Object.keys(view.settings)))];
    const words = search.value.trim().toLowerCase();
    const values = (name) => views.map((view) => view.settings[name] ?? "–");
    const differs = (name) => new Set(values(name)).size > 1;
    const shown = names.filter(
      (name) =>
        (!several || !only.checked || differs(name)) &&
        (!words || name.toLowerCase().includes(words) || values(name).some((text) => text.toLowerCase().includes(words))),
    );
    choice.hidden = !several;
    count.textContent = shown.length === names.length ? `${names.length} settings` : `${shown.length} of ${names.length} settings`;
    replace(
      place,
      element(
        "table",
        { class: "run-settings" },
        element("thead", {}, element("tr", {}, ["setting", ...views.map((view) => (several ? view.name : "value"))].map((text) => element("th", { scope: "col" }, text)))),
        element(
          "tbody",
          {},
          shown.map((name) =>
            element(
              "tr",
              { class: several && differs(name) ? "differs" : false },
              element("th", { scope: "row" }, name),
              values(name).map((text) => element("td", {}, text === "" ? "(empty)" : text)),
            ),
          ),
        ),
      ),
    );
  }

  return {
    node,
    update(views) {
      state.views = views;
      draw();
    },
  };
}
