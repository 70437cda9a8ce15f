// One dataset: its head, its tabs, and the refresh while it is being prepared.

import { element, newId, replace } from "../dom.js";
import { factList } from "../fact_list.js";
import { ago, bytes, count, percent, plural } from "../quantities.js";
import { detailsPanel } from "./details.js";
import { overviewPanel } from "./overview.js";
import { keptPanel, rejectedPanel } from "./pictures.js";
import { rowsPanel } from "./rows.js";
import { stateBadge } from "./state_badge.js";
import { TABS } from "./tab_names.js";

const AGAIN = 3000; // milliseconds between two looks while a dataset is being prepared

/** Shows a dataset. Returns the function that ends it. */
export function mountDataset(root, context, name, firstTab) {
  const { api } = context;
  const path = `/studio/datasets/${encodeURIComponent(name)}`;
  const head = element("div", { class: "stack tight" }, element("h1", {}, name), element("p", { class: "hint" }, "Reading the dataset …"));
  const body = element("div", { class: "stack" });
  replace(root, element("div", { class: "stack" },
    element("p", { class: "data-back" }, element("a", { href: "#/data" }, "← All datasets")), head, body));
  let timer = null;
  let ended = false;
  let tabs = null;
  const look = async () => {
    let dataset;
    try {
      dataset = await api.get(path);
    } catch (error) {
      if (!ended && !tabs) replace(head, element("h1", {}, name), element("p", { class: "card error", role: "alert" }, error.message));
      else if (!ended) timer = setTimeout(look, AGAIN);
      return;
    }
    if (ended) return;
    replace(head, headOf(dataset));
    head.parentElement.classList.add("data-page");
    if (!tabs) {
      tabs = tabbed(body, { ...context, path, name, dataset }, firstTab);
    } else {
      tabs.update(dataset);
    }
    if (dataset.state === "preparing" || dataset.units.unread) timer = setTimeout(look, AGAIN);
  };
  look();
  return () => {
    ended = true;
    clearTimeout(timer);
    tabs?.end();
  };
}

function headOf(dataset) {
  const facts = [
    ["Kept", `${count(dataset.kept)}`, dataset.rows ? `${percent(dataset.kept / dataset.rows)} of the rows` : ""],
    ["Rows", count(dataset.rows), `in ${plural(dataset.units.images, "unit")}`],
    ["On disk", bytes(dataset.bytes), dataset.fingerprint ? `fingerprint ${dataset.fingerprint.slice(0, 8)}` : ""],
    ["Latents", dataset.latents ? count(dataset.latents.count) : latentsSoFar(dataset),
      dataset.latents?.not_finite ? `${count(dataset.latents.not_finite)} left out: not finite` : ""],
  ];
  return [
    element("div", { class: "row" }, element("h1", {}, dataset.name), stateBadge(dataset.state)),
    element("p", { class: "data-lead" }, dataset.sentence),
    live(dataset),
    dataset.problems.map((problem) => element("p", { class: "data-note bad", role: "alert" }, problem)),
    dataset.remarks.map((remark) => element("p", { class: "data-note" }, remark)),
    factList(facts),
  ];
}

function latentsSoFar(dataset) {
  const { latents, images } = dataset.units;
  return latents ? `${count(latents)} of ${plural(images, "unit")}` : "none";
}

function live(dataset) {
  if (dataset.units.unread) {
    return element("p", { class: "data-note", role: "status" }, `Still counting: ${plural(dataset.units.unread, "unit")} to read.`);
  }
  if (dataset.state !== "preparing") return null;
  const since = dataset.newest ? ` The last unit was finished ${ago(dataset.newest)}.` : "";
  return element("p", { class: "data-note live" }, `Being prepared; this page refreshes itself.${since}`);
}

const PANELS = { overview: overviewPanel, kept: keptPanel, rejected: rejectedPanel, rows: rowsPanel, details: detailsPanel };

/** Shows the tabs and the chosen one's panel. */
function tabbed(body, context, first) {
  const panel = element("div", { class: "data-panel", role: "tabpanel", id: newId("panel"), tabindex: "-1" });
  const buttons = new Map();
  let current = null;
  let dataset = context.dataset;
  const choose = (tab, options = {}) => {
    current?.end?.();
    for (const [name, button] of buttons) {
      button.setAttribute("aria-selected", String(name === tab));
      button.tabIndex = name === tab ? 0 : -1;
    }
    panel.setAttribute("aria-labelledby", buttons.get(tab).id);
    body.parentElement.dataset.tab = tab; // the facts are shown above the overview only
    current = PANELS[tab](panel, { ...context, dataset, choose }, options);
    history.replaceState(null, "", `#/data/${encodeURIComponent(context.name)}${tab === "overview" ? "" : `/${tab}`}`);
  };
  for (const [name, title] of Object.entries(TABS)) {
    buttons.set(name, element("button", { type: "button", role: "tab", id: newId("tab"), "aria-controls": panel.id, onClick: () => choose(name) }, title));
  }
  const list = element("div", { class: "tabs data-tabs", role: "tablist", "aria-label": "Parts of the dataset" }, [...buttons.values()]);
  list.addEventListener("keydown", (event) => {
    const names = [...buttons.keys()];
    const at = names.findIndex((name) => buttons.get(name) === document.activeElement);
    const next = { ArrowRight: at + 1, ArrowLeft: at - 1, Home: 0, End: names.length - 1 }[event.key];
    if (next === undefined || at < 0) return;
    event.preventDefault();
    const name = names[(next + names.length) % names.length];
    choose(name);
    buttons.get(name).focus();
  });
  replace(body, list, panel);
  choose(first);
  return {
    update(fresh) {
      dataset = fresh;
      current?.update?.(fresh);
    },
    end: () => current?.end?.(),
  };
}
