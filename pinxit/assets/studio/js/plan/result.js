// A plan: the verdict, memory, time, largest batches, data and commands.

import { commandLine } from "../command_line.js";
import { element } from "../dom.js";
import { factList } from "../fact_list.js";
import { bytes, count, digits, duration, memory, percent, plural } from "../quantities.js";
import { scrollBox } from "../scroll_box.js";
import { batchCurve } from "./batch_curve.js";
import { memoryBar } from "./memory_bar.js";

/** Returns the nodes that show a plan. */
export function resultOf(plan, choices) {
  return [verdict(plan), memoryCard(plan), timeCard(plan), largestCard(plan, choices), dataCard(plan), commandsCard(plan), notesCard(plan)];
}

/** Returns the progress of a plan that is being computed. */
export function progressOf(answer, cancel) {
  const { what, seconds, programs, total_seconds: total } = answer.progress;
  const waits = answer.state === "waiting";
  const words = waits
    ? `Waiting: ${answer.position ? `${plural(answer.position, "plan")} before this one` : "it begins in a moment"}.`
    : `Compiling ${what || "the training step"}: ${duration(Math.round(seconds))}.`;
  return element("div", { class: "card stack tight" },
    element("h2", {}, `Computing the plan for ${answer.target}`),
    element("p", {}, words),
    element("div", { class: "plan-busy", "aria-hidden": "true" }, element("span", {})),
    element("p", { class: "hint" }, waits ? "One plan is computed at a time."
      : `Program ${programs || 1}, ${duration(Math.round(total))} in all. You may leave this page: the computation goes on.`),
    element("div", { class: "row" }, element("button", { class: "button", type: "button", dataset: { keep: "cancel" }, onClick: cancel }, "Cancel")));
}

/** Returns the reason why there is no plan, with the command that helps. */
export function problem(answer) {
  const { message, command } = answer.error ?? { message: "The plan could not be made." };
  return element("div", { class: "card stack tight", role: "alert" },
    element("h2", {}, command ? "A compiler is missing" : "There is no plan for this"),
    element("p", { class: "plan-wrap" }, `${message.replace(/\.$/, "")}.`),
    command ? [element("p", {}, "This command installs it; then plan again:"), commandLine(command, "the command that installs the compiler")] : null,
    answer.plan_command && !command ? [element("p", { class: "hint" }, "The same plan in a terminal:"), commandLine(answer.plan_command, "the command that plans")] : null);
}

function verdict(plan) {
  const kind = plan.fits ? "good" : "bad";
  const mesh = Object.entries(plan.mesh).filter(([, size]) => size > 1).map(([name, size]) => `${name}=${size}`).join(", ");
  const facts = [
    ["Batch", count(plan.batch_size), saving(plan)],
    ["Time of a step", plan.time ? duration(plan.time.middle) : "not estimated", plan.time ? `${duration(plan.time.low)} to ${duration(plan.time.high)}` : noTime(plan)],
    ["Images per second", plan.time ? digits(plan.time.images_per_second) : "–", plan.time?.utilisation ? `${percent(plan.time.utilisation)} of the peak FLOP/s` : ""],
    ["Whole run", plan.time ? duration(3600 * plan.time.hours[1]) : "–", plan.time ? `${duration(3600 * plan.time.hours[0])} to ${duration(3600 * plan.time.hours[2])}, ${count(plan.max_steps)} steps` : `${count(plan.max_steps)} steps`],
  ];
  if (plan.time && plan.time.cost[1] !== null) {
    facts.push(["Cost", digits(plan.time.cost[1]), `${digits(plan.time.cost[0])} to ${digits(plan.time.cost[2])}`]);
  }
  const size = `pictures of ${plan.image_size} × ${plan.image_size} pixels${plan.on_pixels ? "" : " as latents"}`;
  return element("section", { class: `card stack plan-verdict ${kind}`, "aria-label": "Verdict" },
    element("p", { class: "sentence" }, element("span", { class: `mark ${kind}`, "aria-hidden": "true" }, plan.fits ? "✓" : "✗"), ` ${plan.verdict}`),
    element("p", { class: "hint" }, `${plan.recipe} on ${plan.target.name} (${plan.target.devices} × ${plan.target.chip.title}): the network ${plan.preset} with `
      + `${digits(plan.parameters / 1e6)} million parameters, ${size}, ${plan.dtype}, ${plan.computed}${mesh ? `, devices ${mesh}` : ""}.`),
    factList(facts));
}

function saving(plan) {
  const pieces = plan.gradient_accumulation_steps > 1 ? `, in ${plan.gradient_accumulation_steps} pieces` : "";
  return `memory saving: ${plan.remat}${pieces}`;
}

function noTime(plan) {
  if (!plan.fits) return "the step does not fit";
  return plan.target.name === "here" ? "train a few steps to measure it" : "";
}

function memoryCard(plan) {
  return element("section", { class: "card stack" },
    element("h2", {}, "Memory of each device"),
    memoryBar(plan));
}

function timeCard(plan) {
  if (!plan.time || !Object.keys(plan.time.by_part).length) return null;
  const parts = [...Object.entries(plan.time.by_part), ...(plan.time.links ? [["links between devices", plan.time.links]] : [])];
  return element("section", { class: "card stack tight" },
    element("h2", {}, "Where the time goes"),
    element("table", { class: "plan-parts" }, element("tbody", {}, parts.map(([part, seconds]) => element("tr", {},
      element("th", { scope: "row" }, part), element("td", { class: "number" }, duration(seconds)), element("td", { class: "number" }, percent(seconds / plan.time.seconds)),
      element("td", { class: "data-bar", "aria-hidden": "true" }, element("span", { class: "plan-time", style: { width: `${(100 * seconds) / plan.time.seconds}%` } })))))),
    element("p", { class: "hint" }, `Based on ${plan.time.method}.`));
}

function largestCard(plan, choices) {
  if (!plan.largest.length) return null;
  const meanings = Object.fromEntries(choices.policies.map((each) => [each.name, each.meaning]));
  return element("section", { class: "card stack" },
    element("h2", {}, "Largest batch that fits"),
    scrollBox("Largest batch by way of saving memory", element("table", { class: "plan-largest" },
      element("thead", {}, element("tr", {}, element("th", { scope: "col" }, "Memory saving"),
        ["Batch", "Memory", "Images/s"].map((name) => element("th", { scope: "col", class: "number" }, name)))),
      element("tbody", {}, plan.largest.map((one) => element("tr", {},
        element("th", { scope: "row" }, one.remat, element("span", { class: "hint" }, ` ${meanings[one.remat] ?? ""}`)),
        element("td", { class: "number" }, one.batch ? count(one.batch) : "none"),
        element("td", { class: "number" }, one.peak ? memory(one.peak) : "–"),
        element("td", { class: "number" }, one.images_per_second ? digits(one.images_per_second) : "–")))))),
    batchCurve(plan));
}

function dataCard(plan) {
  const { data } = plan;
  const lines = [
    ["Images seen", count(data.seen)],
    ["Different images", `${count(data.kept)} (${digits(data.epochs)} epochs)`],
    ["Rows of the table to read", count(data.rows)],
    ["Fetched from the web", bytes(data.fetched_bytes)],
    data.streamed ? ["To and from the devices", bytes(data.transferred_bytes)] : ["Stored images", bytes(data.image_bytes)],
    data.latent_bytes ? ["Latents", bytes(data.latent_bytes)] : null,
    data.text_bytes ? ["Stored text", bytes(data.text_bytes)] : null,
    ["Time to fetch them", duration(data.fetch_seconds)],
  ].filter(Boolean);
  return element("section", { class: "card stack tight" },
    element("h2", {}, "Data, if it comes from COYO"),
    element("table", { class: "plan-data" }, element("tbody", {}, lines.map(([label, value]) => element("tr", {},
      element("th", { scope: "row" }, label), element("td", { class: "number" }, value))))));
}

function commandsCard(plan) {
  return element("section", { class: "card stack tight" },
    element("h2", {}, "Commands"),
    element("p", {}, "The same plan in a terminal:"), commandLine(plan.plan_command, "the command that plans"),
    element("p", {}, "To train with these settings:"), commandLine(plan.train_command, "the command that trains"));
}

function notesCard(plan) {
  if (!plan.notes.length) return null;
  return element("details", { class: "card", dataset: { key: "notes" } }, element("summary", {}, "What the figures are based on"),
    element("ul", {}, plan.notes.map((line) => element("li", {}, line))));
}
