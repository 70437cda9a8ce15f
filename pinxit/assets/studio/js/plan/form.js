// The form of a plan. It remembers its values for as long as the browser's tab is open.

import { element, field, newId, replace } from "../dom.js";
import { count, digits } from "../quantities.js";
import { TAB, remember, rememberedObject } from "../storage.js";

const KEY = "pinxit-plan";
const MOST = 6; // machines

/** Returns the form's node, its requests (one for each machine), and its errors. */
export function planForm(choices, { onChange, onSubmit }, active) {
  const stored = fromJobs(active) ?? rememberedObject(TAB, KEY) ?? {};
  const recipes = new Map(choices.recipes.map((each) => [each.name, each]));
  const recipe = element("select", {}, choices.recipes.map((each) => element("option", { value: each.name }, each.name)));
  recipe.value = recipes.has(stored.recipe) ? stored.recipe : "scenes";
  const about = element("p", { class: "hint plan-summary" });
  const values = {};
  const machines = machineRows(choices, stored.targets ?? ["here"], changed);
  const fields = element("div", { class: "stack" });
  const error = element("p", { class: "error", role: "alert", hidden: true });
  const policies = choices.searched.map((name) => element("input", { type: "checkbox", value: name, id: newId("policy"), checked: (stored.policies ?? []).includes(name) }));
  const meanings = Object.fromEntries(choices.policies.map((each) => [each.name, each.meaning]));
  const search = element("fieldset", { class: "plan-policies" },
    element("legend", {}, "Find the largest batch"),
    element("p", { class: "hint" }, "For each way of saving memory; each takes a few compilations."),
    policies.map((box) => element("div", { class: "row" }, box, element("label", { for: box.id }, box.value, element("span", { class: "hint" }, ` ${meanings[box.value] ?? ""}`)))));
  const form = element("form", { class: "card stack plan-form", novalidate: true, "aria-label": "What to plan" },
    field("Recipe", recipe), about, machines.node, fields, search, error,
    element("button", { class: "button primary", type: "submit" }, "Compute the plan"));
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    onSubmit();
  });
  form.addEventListener("input", changed);
  recipe.addEventListener("change", () => {
    build({});
    changed();
  });

  function build(given) {
    const { defaults, summary } = recipes.get(recipe.value);
    about.textContent = summary;
    Object.assign(values, controls(choices, defaults, given));
    replace(fields, element("div", { class: "plan-fields" },
      field("Batch size", values.batch_size), field("Steps", values.max_steps), field("Image size", values.image_size)),
    field("Network", values["model.preset"]),
    field("Memory saving", values["model.remat"], "Computing activations again saves memory. auto takes the fastest way that fits."),
    field("Price of one device for an hour", values.price, "In any currency, for the cost."),
    element("details", { open: Boolean(given.more) }, element("summary", {}, "More settings"),
      field("One setting a line", values.more, "Its dotted name and its value, such as: optimizer.name muon")));
  }

  function changed() {
    remember(TAB, KEY, JSON.stringify(state()));
    onChange();
  }

  const state = () => ({
    recipe: recipe.value,
    targets: machines.chosen(),
    policies: policies.filter((box) => box.checked).map((box) => box.value),
    fields: Object.fromEntries(Object.entries(values).map(([name, control]) => [name, control.value])),
  });

  build(stored.fields ?? {});
  return {
    node: form,
    requests: () => {
      const { targets, policies: searched } = state();
      const body = { recipe: recipe.value, settings: settingsOf(values), policies: searched, price: values.price.value === "" ? null : Number(values.price.value) };
      return targets.map((target) => ({ ...body, target }));
    },
    clearErrors() {
      error.hidden = true;
      for (const control of Object.values(values)) control.removeAttribute("aria-invalid");
    },
    showError(param, message) {
      error.hidden = false;
      error.textContent = message;
      const name = param ?? message.split(":")[0];
      (values[name] ?? values[`model.${name}`])?.setAttribute("aria-invalid", "true");
    },
  };
}

function controls(choices, defaults, given) {
  const number = (name, step = 1) => element("input", { type: "number", min: 1, step, placeholder: count(defaults[name]).replace(/,/g, ""), value: given[name] ?? "", inputmode: "numeric" });
  const select = (name, options) => {
    const node = element("select", {}, element("option", { value: "" }, `${defaults[name]} (the recipe's)`),
      options.filter((each) => each !== defaults[name]).map((each) => element("option", { value: each }, each)));
    node.value = given[name] ?? "";
    return node;
  };
  return {
    batch_size: number("batch_size"),
    max_steps: number("max_steps"),
    image_size: number("image_size"),
    "model.preset": select("model.preset", choices.presets),
    "model.remat": select("model.remat", ["auto", ...choices.policies.map((each) => each.name)]),
    price: element("input", { type: "number", min: 0, step: "any", value: given.price ?? "", inputmode: "decimal" }),
    more: element("textarea", { rows: 3, spellcheck: "false", value: given.more ?? "" }),
  };
}

function settingsOf(values) {
  const settings = {};
  for (const [name, control] of Object.entries(values)) {
    if (name !== "price" && name !== "more" && control.value !== "") settings[name] = control.value;
  }
  for (const line of values.more.value.split("\n")) {
    const [, name, value] = line.trim().match(/^-{0,2}([^\s=]+)(?:[\s=]+(.*))?$/) ?? [];
    if (name) settings[name] = value ?? "";
  }
  return settings;
}

/** Returns the selects of the machines: one, and more to compare with. */
function machineRows(choices, first, changed) {
  const list = element("div", { class: "stack tight" });
  const known = new Set(choices.targets.map((each) => each.name));
  const add = element("button", { class: "button quiet plan-add", type: "button", onClick: () => { addRow("tpu-v3-8", true); changed(); } }, "+ Another machine");
  const addRow = (name, focus = false) => {
    const select = element("select", { "aria-label": list.children.length ? "Machine to compare with" : "Machine" }, grouped(choices.targets));
    select.value = known.has(name) ? name : "here";
    const remove = element("button", { class: "button quiet", type: "button", "aria-label": "Remove this machine", onClick: () => { row.remove(); update(); changed(); } }, "×");
    const row = element("div", { class: "plan-machine" }, select, list.children.length ? remove : null);
    list.append(row);
    update();
    if (focus) select.focus();
  };
  const update = () => { add.hidden = list.children.length >= MOST; };
  first.slice(0, MOST).forEach((name) => addRow(name));
  return {
    node: element("div", { class: "field" }, element("span", { class: "label" }, "Machine"), list, element("div", {}, add)),
    chosen: () => [...new Set([...list.querySelectorAll("select")].map((each) => each.value))],
  };
}

function grouped(targets) {
  const kinds = [...new Set(targets.map((each) => each.kind))];
  return kinds.map((kind) => element("optgroup", { label: kind }, targets.filter((each) => each.kind === kind).map((each) =>
    element("option", { value: each.name }, each.devices ? `${each.name}: ${each.devices} × ${digits(each.gib)} GiB` : "here: the devices of this machine"))));
}

function fromJobs(active) {
  if (!active.length) return null;
  const [job] = active;
  const same = active.filter((each) => each.recipe === job.recipe && JSON.stringify(each.settings) === JSON.stringify(job.settings));
  const own = ["batch_size", "max_steps", "image_size", "model.preset", "model.remat"];
  const text = (value) => (value === null ? "none" : typeof value === "boolean" ? String(Number(value)) : String(value));
  const more = Object.entries(job.settings).filter(([name]) => !own.includes(name)).map(([name, value]) => `${name} ${text(value)}`);
  return {
    recipe: job.recipe,
    targets: same.map((each) => each.target),
    policies: job.policies,
    fields: { ...Object.fromEntries(own.filter((name) => name in job.settings).map((name) => [name, text(job.settings[name])])), more: more.join("\n"), price: job.price ?? "" },
  };
}
