// The view Compare: pictures over one, two or three settings, as one labelled sheet.

import { copy } from "../command_line.js";
import { element, field, replace } from "../dom.js";
import { keepForDraw, takePictures } from "../draw/dropped_pictures.js";
import { growingText, numberInput, numberOf, onSent, sizeChoice, solverChoice } from "../draw/fields.js";
import { keepPace, knownPace, workOf } from "../draw/speed.js";
import { duration } from "../draw/words.js";
import { plural } from "../quantities.js";
import { BROWSER, remember, rememberedObject } from "../storage.js";
import { VARIABLES, axisRow } from "./axes.js";
import { followGrid, runningGrid } from "./progress.js";

const KEY = "pinxit-compare-form";
const AGAIN = 2000; // milliseconds until the models are read again
const TYPING = 400; // milliseconds without typing before the request is checked

/** Shows the view. Returns the function that ends it. */
export function mount(root, { api, navigate, say }) {
  const prompt = growingText("prompt", { rows: 2, placeholder: "Describe the pictures" });
  const negative = growingText("negative_prompt", { rows: 1, placeholder: "Nothing in particular" });
  const seed = numberInput("seed", { min: 0, max: 4294967295 });
  const steps = numberInput("steps", { min: 1, max: 250 });
  const guidance = numberInput("guidance_scale", { min: 0, max: 100, step: "any", mode: "decimal" });
  const solver = solverChoice();
  const size = sizeChoice(checkSoon);
  const model = element("select", { name: "model" });
  const axes = [["x", "Columns"], ["y", "Rows"], ["z", "Panels"]].map(([name, label], i) =>
    axisRow(name, label, { optional: i > 0, onChange: changed }));
  const fixed = {
    seed: field("Seed", seed), steps: field("Steps", steps), guidance_scale: field("Guidance", guidance),
    solver: field("Solver", solver), size, checkpoint: field("Model", model),
    prompt: field("Prompt", prompt), negative_prompt: field("Negative prompt", negative),
  };
  fixed.checkpoint.hidden = true;
  const estimate = element("p", { class: "estimate", role: "status" });
  const trouble = element("p", { class: "error", role: "alert", hidden: true });
  const start = element("button", { type: "submit", class: "button primary wide" }, "Draw the comparison");
  const command = element("button", { type: "button", class: "button small quiet", hidden: true }, "Copy the command");
  const form = element("form", { class: "card stack compare-form", novalidate: true, "aria-label": "What to compare" },
    fixed.prompt, axes[0].node, axes[1].node, axes[2].node,
    element("div", { class: "estimate-row stack tight" }, estimate, trouble, start, command),
    element("details", { class: "more" }, element("summary", {}, "Settings that all pictures share"),
      element("div", { class: "stack" }, fixed.checkpoint, fixed.negative_prompt, fixed.size,
        element("div", { class: "triple" }, fixed.seed, fixed.steps, fixed.guidance_scale), fixed.solver)));
  const result = element("section", { class: "stack result", "aria-label": "Comparison" });
  let defaults = { models: [], axes: VARIABLES.map(([name]) => name) };
  let checked = null;
  let timer = null;
  let loading = null;
  let turn = 0;
  let following = null;
  let ended = false;

  function changed() {
    for (const [name, node] of Object.entries(fixed)) {
      const varied = axes.some((axis) => axis.name === name);
      node.hidden = varied || (name === "checkpoint" && defaults.models.length < 2);
    }
    checkSoon();
  }

  function read() {
    const varied = new Set(axes.map((axis) => axis.name));
    const values = {
      prompt: prompt.value.trim() ? prompt.value : null, negative_prompt: negative.value.trim() ? negative.value : null,
      seed: numberOf(seed), steps: numberOf(steps), guidance_scale: numberOf(guidance),
      solver: solver.value || null, size: size.read() || null,
    };
    const settings = Object.fromEntries(Object.entries(values).filter(([name, value]) => value !== null && !varied.has(name)));
    const usual = chosen();
    for (const name of ["steps", "guidance_scale", "solver"]) {
      if (usual?.sampling && settings[name] === usual.sampling[name]) delete settings[name];
    }
    if (usual?.image_size && settings.size === `${usual.image_size}x${usual.image_size}`) delete settings.size;
    if (settings.seed === 0) delete settings.seed;
    const body = { axes: axes.map((axis) => axis.read()).filter(Boolean), settings };
    if (!varied.has("checkpoint") && defaults.models.length > 1 && usual !== defaults.models[0]) body.model = usual.id;
    return body;
  }

  function chosen() {
    return defaults.models.find((entry) => entry.id === model.value) ?? defaults.models[0];
  }

  function store() {
    const stored = {
      prompt: prompt.value, negative_prompt: negative.value, seed: seed.value,
      axes: axes.map((axis) => [axis.name, axis.values.value]),
    };
    remember(BROWSER, KEY, JSON.stringify(stored));
  }

  function restore() {
    const stored = rememberedObject(BROWSER, KEY);
    seed.value = stored?.seed ?? "0";
    prompt.value = stored?.prompt ?? "";
    negative.value = stored?.negative_prompt ?? "";
    const usual = [["guidance_scale", "1, 2, 4, 8"], ["seed", "0-2"], ["", ""]];
    const rows = Array.isArray(stored?.axes) && stored.axes.length === 3 ? stored.axes : usual;
    axes.forEach((axis, i) => axis.choose(String(rows[i][0]), String(rows[i][1])));
  }

  function checkSoon() {
    store();
    checked = null;
    clearTimeout(timer);
    timer = setTimeout(check, TYPING);
  }

  /** Asks the server what the comparison would take, and says it. */
  async function check() {
    clearTimeout(timer);
    const mine = (turn += 1);
    clearTrouble();
    const request = read();
    if (request.axes.length === 0 || (!request.settings.prompt && !axes.some((axis) => axis.name === "prompt"))) {
      estimate.textContent = "Describe the pictures, and choose what varies.";
      command.hidden = true;
      return null;
    }
    const answer = await api.post("/studio/grids/check", request).catch((error) => ({ problem: error }));
    if (mine !== turn) return null;
    command.hidden = Boolean(answer.problem);
    if (answer.problem) {
      estimate.textContent = "";
      refuse(answer.problem);
      return null;
    }
    checked = answer;
    const { width, height } = answer.sheet;
    estimate.textContent = `${plural(answer.total, "picture")} on a sheet of ${width} × ${height} pixels. ${timeWords(answer.cells)}`;
    return answer;
  }

  function refuse(error) {
    trouble.textContent = error.message;
    trouble.hidden = false;
    const place = { axis: 0, axes: 0, x: 0, y: 1, z: 2 }[error.param];
    const axis = axes.find((each) => each.name === error.param) ?? axes[place];
    (axis?.values ?? { prompt, seed, steps }[error.param])?.setAttribute("aria-invalid", "true");
  }

  function clearTrouble() {
    trouble.hidden = true;
    for (const control of form.querySelectorAll("[aria-invalid]")) control.removeAttribute("aria-invalid");
  }

  async function submit() {
    start.disabled = true;
    try {
      const request = read();
      if (!checked && !(await check())) {
        if (trouble.hidden) prompt.focus();
        return;
      }
      const grid = await api.post("/studio/grids", request);
      show(grid);
    } catch (error) {
      refuse(error);
    } finally {
      start.disabled = false;
    }
  }

  function show(grid) {
    following?.end();
    following = followGrid({ api, say, grid, onPace: keepPace, onAgain: () => submit() });
    replace(result, following.node);
    if (matchMedia("(max-width: 56rem)").matches) result.scrollIntoView({ block: "start", behavior: "smooth" });
  }

  onSent(form, submit);
  form.addEventListener("input", changed);
  command.addEventListener("click", () => checked && copy(checked.command, say));
  replace(root, element("h1", { class: "visually-hidden" }, "Compare"),
    element("div", { class: "draw-layout" }, element("div", { class: "draw-side stack" }, form), result));
  replace(result, element("div", { class: "welcome" },
    element("h2", {}, "See what a setting does."),
    element("p", {}, "Choose what varies along the columns, and if you like along the rows and from panel to panel. Every combination is drawn, and all pictures become one labelled sheet in the gallery.")));
  const stopTaking = takePictures((file) => {
    keepForDraw(file);
    navigate("draw");
  });
  offer();
  restore();
  loadDefaults().then(() => runningGrid(api)).then((grid) => {
    if (grid && !ended) show(grid);
  }).catch((error) => {
    if (!ended) say(error.message, "error");
  });

  /** Reads the models, again after a time while the chosen one is not loaded. */
  async function loadDefaults() {
    defaults = await api.get("/studio/defaults");
    if (ended) return;
    const before = model.value;
    replace(model, defaults.models.map((entry) => element("option", { value: entry.id }, entry.name)));
    if (defaults.models.some((entry) => entry.id === before)) model.value = before;
    offer();
    changed();
    if (!chosen()?.sampling) loading = setTimeout(() => loadDefaults().catch(() => {}), AGAIN);
  }

  function offer() {
    const entry = chosen();
    for (const axis of axes) axis.offer(defaults.axes, defaults.models);
    solver.offer(entry?.solvers ?? [], entry?.sampling?.solver);
    size.offer(entry);
    steps.placeholder = entry?.sampling?.steps ?? "";
    guidance.placeholder = entry?.sampling?.guidance_scale ?? "";
  }
  model.addEventListener("change", offer);
  return () => {
    ended = true;
    clearTimeout(timer);
    clearTimeout(loading);
    following?.end();
    stopTaking();
  };
}

function timeWords(cells) {
  const pace = knownPace();
  if (pace === null) return "How long they take is known after the first ones.";
  return `That takes about ${duration(pace * cells.reduce((sum, cell) => sum + workOf(cell), 0))}.`;
}
