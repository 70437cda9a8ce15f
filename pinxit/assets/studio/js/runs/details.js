// What a run's page shows as text: warnings, tables, the command, the machine.

import { withThousands } from "../chart/numbers.js";
import { element } from "../dom.js";

const KINDS = { warning: "Warning", change: "Changed", resume: "Resumed" };

/** Returns the warnings, changes and resumes of a run, or null if there are none. */
export function eventList(view) {
  if (!view.events.length) return null;
  return element(
    "section",
    { class: "card stack", "aria-label": `What happened in ${view.name}` },
    element("h2", {}, "What happened"),
    element(
      "ul",
      { class: "run-events" },
      view.events.map((event) =>
        element(
          "li",
          { class: event.kind },
          element("span", { class: "run-event-kind" }, KINDS[event.kind] ?? event.kind),
          element("span", { class: "figures" }, `step ${withThousands(String(event.step))}`),
          element("div", {}, element("p", {}, event.text), event.advice ? element("p", { class: "hint" }, event.advice) : null),
        ),
      ),
    ),
  );
}

/** Returns a table from the server: title, head, rows as text, and the number of the best row. */
export function table(data) {
  const numbers = data.head.map((_, i) => i > 0 && data.rows.every((row) => /^[-–\d.,%e+]*$/.test(row[i] ?? "")));
  const cell = (tag, text, i) => element(tag, { class: numbers[i] ? "number" : false, scope: tag === "th" ? "col" : false }, text);
  return element(
    "div",
    { class: "scroll-x", tabindex: 0, role: "region", "aria-label": data.title || "Table" },
    element(
      "table",
      {},
      element("thead", {}, element("tr", {}, data.head.map((text, i) => cell("th", text, i)))),
      element(
        "tbody",
        {},
        data.rows.map((row, number) => element("tr", { class: number === data.best ? "best" : false }, row.map((text, i) => cell("td", text, i)))),
      ),
    ),
  );
}

/** Returns the tables of the newest evaluation, with its protocol. */
export function evaluation(view, several) {
  if (!view.tables.length) return null;
  return element(
    "section",
    { class: "stack" },
    element("h2", {}, several ? `Evaluation of ${view.name}` : "Evaluation", view.evaluated_at === null ? null : element("span", { class: "hint" }, ` step ${withThousands(String(view.evaluated_at))}`)),
    element("div", { class: "run-tables" }, view.tables.map((data) => folded(data.title, table(data), data.rows.length <= 12))),
    view.protocol ? folded("Protocol of the evaluation", table(view.protocol), false) : null,
  );
}

/** Returns the outcomes of the rows, the command and the machine. */
export function origin(view, several) {
  if (!view.command && !Object.keys(view.config).length) return null;
  return element(
    "section",
    { class: "stack" },
    element("h2", {}, several ? `Command of ${view.name}` : "Command and machine"),
    view.summary ? element("p", {}, view.summary) : null,
    view.command ? element("pre", { tabindex: 0, "aria-label": "Command" }, view.command) : null,
    view.outcomes ? folded(view.outcomes.title, table(view.outcomes), true) : null,
    folded("Environment", element("pre", { tabindex: 0, "aria-label": "Environment" }, JSON.stringify(view.environment, null, 2)), false),
    folded("config.json", element("pre", { tabindex: 0, "aria-label": "config.json" }, JSON.stringify(view.config, null, 2)), false),
  );
}

export function folded(title, content, open) {
  return element("details", { class: "card run-folded", open }, element("summary", {}, title), content);
}
