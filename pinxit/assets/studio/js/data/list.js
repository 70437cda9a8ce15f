// The list of prepared datasets.

import { address } from "../api.js";
import { commandLine } from "../command_line.js";
import { element, replace } from "../dom.js";
import { bytes, count, percent, plural } from "../quantities.js";
import { stateBadge } from "./state_badge.js";

const AGAIN = 5000; // milliseconds between two looks while a dataset is being prepared

/** Shows the list, and looks again while a dataset is being prepared. */
export function mountList(root, { api }) {
  let timer = null;
  let ended = false;
  const body = element("div", { class: "stack" }, element("p", { class: "hint" }, "Looking for datasets …"));
  const intro = "What pinxit prepare made of a source: which rows were kept, which were not, and why.";
  replace(root, element("div", { class: "stack" },
    element("div", {}, element("h1", {}, "Data"), element("p", { class: "hint" }, intro)), body));
  let shown = "";
  const look = async () => {
    try {
      const answer = await api.get("/studio/datasets");
      if (ended) return;
      if (JSON.stringify(answer) !== shown) replace(body, listed(answer, api));
      shown = JSON.stringify(answer);
      const busy = answer.datasets.some((each) => each.state === "preparing" || each.unread);
      if (busy) timer = setTimeout(look, AGAIN);
    } catch (error) {
      if (ended) return;
      shown = "";
      replace(body, element("p", { class: "card error", role: "alert" }, error.message));
      timer = setTimeout(look, AGAIN);
    }
  };
  look();
  return () => {
    ended = true;
    clearTimeout(timer);
  };
}

function listed(answer, api) {
  const parts = [];
  if (answer.problem) parts.push(element("p", { class: "card", role: "alert" }, answer.problem));
  for (const folder of answer.missing) {
    parts.push(element("p", { class: "data-note" }, `The folder ${folder} of --data does not exist.`));
  }
  if (answer.datasets.length) {
    parts.push(element("ul", { class: "data-cards" }, answer.datasets.map((each) => card(each, api))));
  } else if (!answer.problem) {
    parts.push(nothing(answer.data));
  }
  return parts;
}

function nothing(folders) {
  const where = folders.length ? `There is no prepared dataset in ${folders.join(", ")} yet.` : "No folder of datasets was named.";
  return element("div", { class: "card stack" },
    element("h2", {}, "No datasets yet"),
    element("p", {}, `${where} A dataset is prepared once, and then trained on as often as you like. `
      + "This prepares a folder of your own pictures with captions:"),
    commandLine("pinxit prepare folder --dataset_path PICTURES --out data/pictures", "the command that prepares"),
    element("p", {}, "Then start the studio with the folder that holds it:"),
    commandLine("pinxit studio --data data", "the command that shows it"));
}

function card(each, api) {
  const link = `#/data/${encodeURIComponent(each.name)}`;
  const strip = element("div", { class: "data-strip", "aria-hidden": "true" });
  if (each.kept) fillStrip(strip, each.name, api);
  return element("li", { class: "card data-card" },
    strip,
    element("div", { class: "row apart" },
      element("h2", {}, element("a", { href: link }, each.name)), stateBadge(each.state)),
    each.problem ? element("p", { class: "error" }, each.problem) : facts(each),
    element("p", { class: "hint data-path" }, each.folder),
    each.runs.length ? element("p", { class: "hint" }, `Trained on by ${each.runs.slice(0, 5).join(", ")}`
      + (each.runs.length > 5 ? ` and ${plural(each.runs.length - 5, "other run")}` : "")) : null);
}

function facts(each) {
  const share = each.kept_share ?? 0;
  return element("div", { class: "stack tight" },
    element("p", {},
      element("strong", {}, `${count(each.kept)} pictures kept`),
      ` of ${plural(each.rows, "row")}${each.rows ? ` (${percent(share)})` : ""}`),
    element("div", { class: "data-meter", "aria-hidden": "true" }, element("span", { style: { width: `${100 * share}%` } })),
    element("p", { class: "hint" },
      [each.source ? `Source ${each.source}` : null, bytes(each.bytes), each.has_latents ? "with latents" : "pictures only",
        each.unread ? `${plural(each.unread, "unit")} not counted yet` : null].filter(Boolean).join(" · ")));
}

async function fillStrip(strip, name, api) {
  const path = `/studio/datasets/${encodeURIComponent(name)}`;
  try {
    const answer = await api.get(`${path}/kept?limit=5`);
    replace(strip, answer.rows.map((row) => element("img", {
      alt: "", loading: "lazy", decoding: "async",
      src: address(`${path}/pictures/${encodeURIComponent(row.unit)}/${row.number}?small=true&v=${row.version}`),
    })));
  } catch {
    // the card is complete without pictures; the dataset's own page names the damage
  }
}
