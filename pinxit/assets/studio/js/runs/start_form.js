// The form that starts a run of scenes.

import { element, field, replace } from "../dom.js";

const SHOWN = [
  ["steps", "Steps", "1,500 take a few minutes on a plain computer and draw first landscapes."],
  ["seed", "Seed", "Another seed trains another model from the same data."],
  ["learning_rate", "Learning rate", "How far each step goes: too high diverges, too low learns slowly."],
];
const MORE = [
  ["batch_size", "Pictures per step", "More of them make each step steadier and slower."],
  ["rows", "Pictures in the dataset", "How many scenes are drawn to train on."],
  ["sample_interval", "Steps between samples", "0 draws samples at the end only."],
  ["save_interval", "Steps between checkpoints", "Stopping always writes one as well."],
  ["eval_interval", "Steps between evaluations", "0 evaluates at the end only."],
  ["log_interval", "Steps between rows of metrics", "Fewer steps give finer curves."],
  ["eval_prompts", "Prompts of the evaluation", "How many held-out prompts are drawn at the end."],
  ["eval_images", "Pictures of the evaluation", "How many held-out pictures are measured; 0 measures nothing."],
];

/** Returns {node, fill(data)}. `started(name)` is called once a run has begun. */
export function startForm({ api, say, started }) {
  const inputs = new Map();
  const name = element("input", { type: "text", required: true, maxlength: 64, pattern: "[A-Za-z0-9][A-Za-z0-9._\\-]*", autocomplete: "off", spellcheck: "false" });
  const problem = element("p", { class: "error", role: "alert", hidden: true });
  const button = element("button", { class: "button primary", type: "submit" }, "Start training");
  const fields = element("div", { class: "grid run-fields" });
  const more = element("div", { class: "grid run-fields" });
  const form = element(
    "form",
    { class: "stack", novalidate: true, onSubmit: submit },
    fields,
    element("details", { class: "run-more" }, element("summary", {}, "More settings"), more),
    problem,
    element("div", { class: "row" }, button, element("span", { class: "hint" }, "The training runs in a process of its own. It goes on if the studio ends.")),
  );
  const off = element("p", { class: "hint", hidden: true }, "This studio starts no runs (--max_trainings 0).");
  const node = element("section", { class: "card stack", "aria-label": "Start a run" }, element("h2", {}, "Start a run of scenes"), off, form);
  let defaults = null;

  function fill(data) {
    off.hidden = data.max_trainings > 0;
    form.hidden = data.max_trainings === 0;
    if (defaults) return;
    defaults = data.defaults;
    name.value = freeName(data.runs.map((run) => run.name));
    replace(fields, field("Name", name, "Letters, digits, dots, dashes, underscores."), SHOWN.map((one) => control(one, data)));
    replace(more, MORE.map((one) => control(one, data)));
  }

  function control([key, label, hint], { defaults: values, limits }) {
    const step = Number.isInteger(values[key]) ? 1 : "any";
    const input = element("input", { type: "number", min: limits[key].min, max: limits[key].max, step, value: String(values[key]), required: true });
    inputs.set(key, input);
    return field(label, input, hint);
  }

  async function submit(event) {
    event.preventDefault();
    problem.hidden = true;
    const wrong = [name, ...inputs.values()].find((input) => !input.validity.valid);
    for (const input of [name, ...inputs.values()]) input.removeAttribute("aria-invalid");
    if (wrong) {
      wrong.closest("details")?.setAttribute("open", "");
      wrong.setAttribute("aria-invalid", "true");
      wrong.focus();
      return fail(`${form.querySelector(`label[for="${wrong.id}"]`).textContent}: ${wrong.validationMessage}`);
    }
    const settings = {};
    for (const [key, input] of inputs) if (Number(input.value) !== defaults[key]) settings[key] = Number(input.value);
    button.disabled = true;
    try {
      const answer = await api.post("studio/runs", { name: name.value, settings });
      say(`${answer.name} is starting.`);
      started(answer.name);
    } catch (error) {
      const input = error.param === "name" ? name : inputs.get(error.param);
      input?.setAttribute("aria-invalid", "true");
      input?.focus();
      fail(error.message);
    } finally {
      button.disabled = false;
    }
    return null;
  }

  function fail(text) {
    problem.hidden = false;
    problem.textContent = text;
  }

  return { node, fill };
}

function freeName(taken) {
  let number = 1;
  while (taken.includes(number === 1 ? "scenes" : `scenes-${number}`)) number += 1;
  return number === 1 ? "scenes" : `scenes-${number}`;
}
