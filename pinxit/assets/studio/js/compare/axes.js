// The rows of the form that choose what a comparison varies, and with which values.

import { element, field, hintOf, replace } from "../dom.js";

/** The settings that can vary: name, words, example, and how values are written. */
export const VARIABLES = [
  ["guidance_scale", "Guidance", "1, 2, 4, 8", "Numbers with commas between them."],
  ["steps", "Steps", "4, 8, 16, 32", "Whole numbers with commas between them."],
  ["seed", "Seed", "0-3", "Seeds with commas between them, or a range such as 0-7."],
  ["solver", "Solver", "euler, heun, dpmpp_2m", "Names of solvers with commas between them."],
  ["size", "Size", "64, 96x64", "Sides, or WIDTHxHEIGHT, with commas between them."],
  ["prompt", "Prompt", "a red house | a blue tent", "Whole prompts with | between them."],
  ["prompt_sr", "Prompt words", "red | blue | green", "The first text is replaced in the prompt by each of them."],
  ["negative_prompt", "Negative prompt", "fog | snow", "Texts with | between them; an empty one is none."],
  ["checkpoint", "Model", "", "Names of models with commas between them."],
  ["shift", "Shift", "1, 2, 3", "Numbers with commas between them."],
  ["guidance_interval", "Guidance interval", "0-1, 0.2-0.8", "LOW-HIGH with commas between them."],
  ["cfg_zero_star", "CFG-Zero*", "0, 1", "0 for off, 1 for on."],
  ["zero_init", "Zero init", "0, 0.04", "Numbers with commas between them."],
  ["spacing", "Spacing of the steps", "even, diffusers", "Names with commas between them."],
];

/** Returns a row: what varies, and its values. `name` is x, y or z. */
export function axisRow(name, label, { optional, onChange }) {
  const setting = element("select", { name: `${name}_setting` });
  const values = element("input", { name: `${name}_values`, autocomplete: "off", spellcheck: "false", maxlength: 32000 });
  const valuesField = field("Values", values);
  const hint = hintOf(values);
  const node = element("fieldset", { class: "axis" }, element("legend", {}, label),
    element("div", { class: "axis-parts" }, field("Setting", setting), valuesField), hint);
  let models = [];
  let written = false;

  function offer(known, entries) {
    models = entries;
    const before = setting.value;
    const options = VARIABLES.filter(([key]) => known.includes(key) && (key !== "checkpoint" || entries.length > 1))
      .map(([key, words]) => element("option", { value: key }, words));
    replace(setting, optional ? element("option", { value: "" }, "nothing") : null, options);
    if ([...setting.options].some((option) => option.value === before)) setting.value = before;
    show();
  }

  function show() {
    const [, , example, words] = VARIABLES.find(([key]) => key === setting.value) ?? ["", "", "", ""];
    valuesField.hidden = !setting.value;
    hint.textContent = words ?? "";
    values.placeholder = setting.value === "checkpoint" ? models.map((model) => model.id).join(", ") : example;
  }

  function choose(key, text) {
    setting.value = key;
    values.value = text;
    written = text !== "";
    show();
  }

  setting.addEventListener("change", () => {
    const [, , example] = VARIABLES.find(([key]) => key === setting.value) ?? [];
    if (!written) values.value = setting.value === "checkpoint" ? values.placeholder : example ?? "";
    else values.value = "";
    written = false;
    show();
    if (!values.value) values.value = values.placeholder;
    onChange();
  });
  values.addEventListener("input", () => {
    written = true;
    onChange();
  });
  return {
    node, offer, choose, values,
    get name() { return setting.value; },
    /** The axis as `pinxit grid` takes it, or null. */
    read: () => (setting.value && values.value.trim() ? `${setting.value}=${values.value.trim()}` : null),
  };
}
