// The form of the view Draw.

import { drawing, element, field, replace } from "../dom.js";
import { BROWSER, remember, rememberedObject } from "../storage.js";
import { checkbox, growingText, numberInput, numberOf, onSent, sizeChoice, solverChoice } from "./fields.js";
import { moreSettings } from "./more_settings.js";
import { sourceImage } from "./source_image.js";
import { newSeed } from "./words.js";

const KEY = "pinxit-draw-form";

/** Returns the form. `onDraw(request)` is called with the body for /v1/jobs. */
export function drawForm({ say, onDraw, onTexts }) {
  const prompt = growingText("prompt", { rows: 3, placeholder: "Describe a picture" });
  prompt.required = true;
  const negative = growingText("negative_prompt", { rows: 1, placeholder: "Nothing in particular" });
  const seed = numberInput("seed", { min: 0, max: 4294967295 });
  const dice = element("button", { type: "button", class: "button dice", title: "Another seed" },
    diceDrawing(), element("span", { class: "visually-hidden" }, "Another seed"));
  const keep = checkbox("keep_seed", "Keep the seed");
  const steps = numberInput("steps", { min: 1, max: 250 });
  const guidance = numberInput("guidance_scale", { min: 0, max: 100, step: "any", mode: "decimal" });
  const count = numberInput("n", { min: 1, max: 64 });
  const solver = solverChoice();
  const size = sizeChoice();
  const model = element("select", { name: "model" });
  const modelField = field("Model", model);
  const more = moreSettings();
  const source = sourceImage(say);
  const cut = element("div", { class: "cut", role: "status" });
  const trouble = element("p", { class: "error", role: "alert", hidden: true });
  const draw = element("button", { type: "submit", class: "button primary wide" }, "Draw");
  const seedField = field("Seed", seed);
  const seedRow = element("div", { class: "with-button" });
  seed.replaceWith(seedRow);
  seedRow.append(seed, dice);
  seedField.append(keep.node);
  const node = element("form", { class: "card stack draw-form", novalidate: true, "aria-label": "What to draw" },
    field("Prompt", prompt), cut, draw, trouble,
    field("Negative prompt", negative, "Guidance steers away from this."),
    modelField,
    size,
    element("div", { class: "stack tight" },
      element("div", { class: "triple" }, field("Pictures", count), field("Steps", steps), field("Guidance", guidance)),
      element("span", { class: "hint" }, "More steps are slower and finer. Guidance says how strictly the prompt is followed; 1 turns it off.")),
    seedField, field("Solver", solver), source.node, more.node,
    element("p", { class: "hint keys" }, element("kbd", {}, "Ctrl"), " + ", element("kbd", {}, "Enter"), " draws from anywhere in the form."));
  const controls = {
    prompt, negative_prompt: negative, seed, steps, guidance_scale: guidance, n: count, solver,
    size: size.control, model, num_inference_steps: steps, ...more.controls,
  };
  modelField.hidden = true;
  let models = [];
  let chosen = null;
  let previous = null;

  function offer(defaults) {
    models = defaults.models;
    const value = model.value;
    replace(model, models.map((entry) => element("option", { value: entry.id }, entry.name)));
    if (models.some((entry) => entry.id === value)) model.value = value;
    modelField.hidden = models.length < 2;
    steps.max = defaults.limits.steps;
    count.max = defaults.limits.pictures;
    chooseModel();
  }

  function chooseModel() {
    chosen = models.find((entry) => entry.id === model.value) ?? models[0] ?? null;
    const sampling = chosen?.sampling;
    solver.offer(chosen?.solvers ?? [], sampling?.solver);
    size.offer(chosen);
    const old = previous?.sampling;
    for (const [input, name] of [[steps, "steps"], [guidance, "guidance_scale"]]) {
      if (sampling && (input.value === "" || (old && Number(input.value) === old[name]))) input.value = sampling[name];
      input.placeholder = sampling ? "" : "as trained";
    }
    if (sampling && old && solver.value === old.solver) solver.value = sampling.solver;
    more.offer(chosen);
    previous = chosen ?? previous;
  }

  /** Returns what is set, but for the image to start from. */
  function read() {
    const body = { prompt: prompt.value, n: numberOf(count) ?? 1 };
    if (negative.value.trim()) body.negative_prompt = negative.value;
    if (seed.value !== "") body.seed = numberOf(seed);
    if (steps.value) body.steps = numberOf(steps);
    if (guidance.value) body.guidance_scale = numberOf(guidance);
    if (solver.value) body.solver = solver.value;
    if (size.read()) body.size = size.read();
    if (models.length > 1 && chosen) body.model = chosen.id;
    return { ...body, ...more.read() };
  }

  /** Fills in settings: those of a recipe, or of a stored form. Absent ones stay as they are. */
  function write(settings) {
    if (settings.model !== undefined && models.some((entry) => entry.id === settings.model)) {
      model.value = settings.model;
      chooseModel();
    }
    if (settings.prompt !== undefined) prompt.value = settings.prompt;
    if (settings.negative_prompt !== undefined) negative.value = settings.negative_prompt;
    if (settings.seed !== undefined && settings.seed !== null) seed.value = settings.seed;
    if (settings.steps) steps.value = settings.steps;
    if (settings.guidance_scale !== undefined) guidance.value = settings.guidance_scale;
    if (settings.solver) {
      if (![...solver.options].some((option) => option.value === settings.solver)) {
        solver.append(element("option", { value: settings.solver }, settings.solver));
      }
      solver.value = settings.solver;
    }
    if (settings.size) size.write(Array.isArray(settings.size) ? settings.size.join("x") : settings.size);
    if (settings.n) count.value = settings.n;
    if (settings.keep_seed !== undefined) keep.box.checked = settings.keep_seed;
    more.write(settings);
    prompt.grow();
    negative.grow();
    store();
    onTexts(texts());
  }

  function texts() {
    return { model: models.length > 1 ? chosen?.id : undefined, prompt: prompt.value, negative_prompt: negative.value };
  }

  function store() {
    const stored = { ...read(), negative_prompt: negative.value, keep_seed: keep.box.checked };
    remember(BROWSER, KEY, JSON.stringify(stored));
  }

  /** Shows an error of the server beside the field that it names. */
  function refuse(error) {
    clearTrouble();
    trouble.textContent = error.message;
    trouble.hidden = false;
    const control = controls[error.param];
    if (!control) return;
    control.setAttribute("aria-invalid", "true");
    if (more.node.contains(control)) more.node.open = true;
    control.focus();
  }

  function clearTrouble() {
    trouble.hidden = true;
    for (const control of node.querySelectorAll("[aria-invalid]")) control.removeAttribute("aria-invalid");
  }

  function submit() {
    clearTrouble();
    if (!prompt.value.trim()) {
      refuse({ message: "Describe a picture first.", param: "prompt" });
      return;
    }
    const bad = [...node.querySelectorAll("input")].find((input) => !input.closest("[hidden]") && !input.checkValidity());
    if (bad) {
      const name = Object.keys(controls).find((key) => controls[key] === bad) ?? "";
      refuse({ message: `${labelOf(bad)}: ${bad.validationMessage}`, param: name });
      bad.focus();
      return;
    }
    if (!keep.box.checked || seed.value === "") seed.value = newSeed();
    store();
    onDraw({ ...read(), ...source.read() });
  }

  function labelOf(input) {
    return node.querySelector(`label[for="${input.id}"]`)?.textContent.trim() ?? "A field";
  }

  onSent(node, submit);
  seed.addEventListener("input", () => {
    keep.box.checked = seed.value !== "";
  });
  dice.addEventListener("click", () => {
    seed.value = newSeed();
    keep.box.checked = true;
    store();
  });
  model.addEventListener("change", chooseModel);
  node.addEventListener("input", () => {
    clearTrouble();
    store();
    onTexts(texts());
  });
  count.value = 1;
  seed.value = newSeed();
  return { node, offer, write, refuse, submit, source, draw, cut, texts, prompt, get model() { return chosen; } };
}

/** Returns the settings that the form had last in this browser, or null. */
export function storedForm() {
  return rememberedObject(BROWSER, KEY);
}

function diceDrawing() {
  const dots = [[6.5, 6.5], [13.5, 6.5], [10, 10], [6.5, 13.5], [13.5, 13.5]];
  const square = { x: 2.5, y: 2.5, width: 15, height: 15, rx: 3, fill: "none", stroke: "currentColor", "stroke-width": 1.5 };
  return drawing("svg", { viewBox: "0 0 20 20", width: 20, height: 20, "aria-hidden": "true" },
    drawing("rect", square), dots.map(([cx, cy]) => drawing("circle", { cx, cy, r: 1.3, fill: "currentColor" })));
}
