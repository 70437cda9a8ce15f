// The details of a dataset: commands, sizes, latents, units that failed, settings.

import { commandLine } from "../command_line.js";
import { element, replace } from "../dom.js";
import { bytes, count } from "../quantities.js";
import { scrollBox } from "../scroll_box.js";

/** Shows the details in the panel. */
export function detailsPanel(panel, { dataset }) {
  const show = (current) => {
    const open = new Set([...panel.querySelectorAll("details[open]")].map((each) => each.dataset.key));
    replace(panel, element("div", { class: "stack" },
      commands(current), sizes(current), latents(current.latents), notRead(current.not_read),
      units("Units that failed in the last command", current.failed), units("Units left out", current.skipped),
      settings(current.settings)));
    for (const each of panel.querySelectorAll("details")) each.open = open.has(each.dataset.key);
  };
  show(dataset);
  return { update: show };
}

function commands(dataset) {
  return element("section", { class: "card stack tight" },
    element("h2", {}, "Commands"),
    dataset.command ? [element("p", {}, "The last preparation:"), commandLine(dataset.command, "the command that prepared it")] : null,
    element("p", {}, "To train on it:"), commandLine(dataset.train, "the command that trains on it"),
    dataset.has_report ? element("p", { class: "hint data-path" }, `Its report is a page of its own: ${dataset.folder}/report.html`) : null);
}

function sizes(dataset) {
  const entries = Object.entries(dataset.sizes);
  if (!entries.length) return null;
  return element("section", { class: "card stack tight" }, element("h2", {}, "Size on disk"),
    element("table", {}, element("tbody", {}, entries.map(([name, size]) => element("tr", {},
      element("th", { scope: "row" }, name), element("td", { class: "number" }, bytes(size)))))),
    element("p", { class: "hint data-path" }, `Fingerprint of the training data: ${dataset.fingerprint}`));
}

function latents(about) {
  if (!about) return null;
  return element("section", { class: "card stack tight" }, element("h2", {}, "Latents"),
    element("p", {}, `${count(about.count)} latents; ${count(about.not_finite)} left out because they were not finite.`),
    scrollBox("Statistics of the channels", element("table", {},
      element("thead", {}, element("tr", {}, ["Channel", "Mean", "Standard deviation"].map((name) => element("th", { scope: "col", class: "number" }, name)))),
      element("tbody", {}, about.mean.map((mean, channel) => element("tr", {},
        [channel, mean.toFixed(4), about.std[channel].toFixed(4)].map((cell) => element("td", { class: "number" }, cell))))))));
}

function notRead(lines) {
  if (!lines.length) return null;
  return element("section", { class: "card stack tight" }, element("h2", {}, "Parts of the source that were not read"),
    element("ul", {}, lines.map((line) => element("li", {}, line))));
}

function units(title, pairs) {
  if (!pairs.length) return null;
  return element("section", { class: "card stack tight" }, element("h2", {}, title),
    scrollBox(title, element("table", {},
      element("thead", {}, element("tr", {}, ["Unit", "Reason"].map((name) => element("th", { scope: "col" }, name)))),
      element("tbody", {}, pairs.map(([unit, reason]) => element("tr", {}, element("td", {}, unit), element("td", {}, reason)))))));
}

function settings(all) {
  const folded = (key, title, value) => element("details", { dataset: { key } }, element("summary", {}, title),
    element("pre", { tabindex: "0" }, JSON.stringify(value, null, 2)));
  return element("section", { class: "card stack tight" }, element("h2", {}, "Settings"),
    folded("content", "Settings that determine the content", all.content), folded("other", "Other settings", all.other));
}
