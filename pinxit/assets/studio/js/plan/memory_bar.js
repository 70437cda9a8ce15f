// The memory of a step by part, as a bar against the memory of the device, and as a table.

import { drawing, element } from "../dom.js";
import { memory, percent } from "../quantities.js";
import { scrollBox } from "../scroll_box.js";

const COLOURS = {
  parameters: "var(--series-2)",
  optimiser: "var(--series-6)",
  ema: "var(--series-3)",
  encoders: "var(--series-5)",
  "encoders beside the step": "var(--series-7)",
  "autoencoder of the stream": "var(--series-8)",
  inputs: "var(--series-1)",
  "gradients, activations, temporaries": "var(--series-4)",
};
const MEANINGS = {
  parameters: "the weights of the network",
  optimiser: "the running averages of the optimiser",
  ema: "the averaged copies of the weights",
  encoders: "the text encoder and the autoencoder that the step uses",
  "encoders beside the step": "encoders that the step does not use",
  "autoencoder of the stream": "what encoding images beside the step takes",
  inputs: "the batch and the next one",
  "gradients, activations, temporaries": "what the step computes on the way",
};

/** Returns the bar, its legend as a table, and the line of the device's memory. */
export function memoryBar(plan) {
  const { parts, peak, limit } = plan.memory;
  const top = Math.max(peak, limit) * 1.02;
  let left = 0;
  const bars = Object.entries(parts).filter(([, size]) => size > 0).map(([name, size]) => {
    const bar = drawing("rect", { x: (1000 * left) / top, y: 0, width: Math.max(0.6, (1000 * size) / top), height: 40, style: { fill: colour(name) } },
      drawing("title", {}, `${titled(plan, name)}: ${memory(size)}`));
    left += size;
    return bar;
  });
  const at = (100 * limit) / top;
  const picture = drawing("svg", {
    viewBox: "0 0 1000 40", preserveAspectRatio: "none", role: "img",
    "aria-label": `${memory(peak)} of ${memory(limit)}, ${plan.fits ? "it fits" : "it does not fit"}`,
  }, ...bars);
  const place = { left: `${at}%` };
  return element("div", { class: "stack" },
    element("div", { class: "plan-bar" }, picture,
      element("div", { class: "plan-limit", style: place, "aria-hidden": "true" }, element("span", {}, `${memory(limit)} usable`))),
    table(plan, parts, peak, limit));
}

function table(plan, parts, peak, limit) {
  const lines = Object.entries(parts).map(([name, size]) => element("tr", {},
    element("th", { scope: "row" }, swatch(name), titled(plan, name), element("span", { class: "hint" }, MEANINGS[name] ? ` ${MEANINGS[name]}` : "")),
    element("td", { class: "number" }, memory(size)), element("td", { class: "number" }, percent(size / peak))));
  return scrollBox("Memory by part", element("table", { class: "plan-memory" },
    element("thead", {}, element("tr", {}, element("th", { scope: "col" }, "Part"),
      element("th", { scope: "col", class: "number" }, "Memory"), element("th", { scope: "col", class: "number" }, "Share"))),
    element("tbody", {}, lines),
    element("tfoot", {},
      element("tr", {}, element("th", { scope: "row" }, "At its highest"), element("td", { class: "number" }, memory(peak)), element("td", { class: "number" }, "100 %")),
      element("tr", {}, element("th", { scope: "row" }, "Usable"), element("td", { class: "number" }, memory(limit)), element("td", {})))));
}

function swatch(name) {
  return element("span", { class: "swatch", style: { background: colour(name) }, "aria-hidden": "true" });
}

function colour(name) {
  return COLOURS[name] ?? "var(--series-8)";
}

function titled(plan, name) {
  return plan.titles[name] ?? name;
}
