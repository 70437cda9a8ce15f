// The recipe of a picture in words and figures.

import { element } from "../dom.js";
import { SOLVERS } from "../draw/fields.js";
import { figure } from "../draw/words.js";

const NAMES = {
  seed: "Seed", size: "Size", steps: "Steps", guidance_scale: "Guidance", solver: "Solver", shift: "Shift",
  spacing: "Spacing", guidance_interval: "Guidance interval", cfg_zero_star: "CFG-Zero*", zero_init: "Zero init",
  model: "Model", model_hash: "Hash of the model", version: "Version of Pinxit", batch_size: "Drawn together",
  encoder_dtype: "Encoders' precision", quality: "Quality of the file",
};
const USUAL = {
  shift: 1, spacing: "even", guidance_interval: [0, 1], cfg_zero_star: false, zero_init: 0, encoder_dtype: "float32",
};

function shown(name, value) {
  if (name === "size") return value.join(" × ");
  if (Array.isArray(value)) return value.map(figure).join(" to ");
  if (typeof value === "boolean") return value ? "on" : "off";
  return typeof value === "number" ? figure(value) : String(value);
}

/** Returns the recipe in one sentence. */
export function sentence(recipe) {
  const guided = recipe.guidance_scale === 1 ? "without guidance" : `with guidance ${figure(recipe.guidance_scale)}`;
  const steps = `${recipe.steps} ${recipe.steps === 1 ? "step" : "steps"}`;
  const start = recipe.image
    ? ` It starts from ${recipe.image.name ? `“${recipe.image.name}”` : "an image"} with strength ${figure(recipe.image.strength)}${recipe.image.mask_sha256 ? " and a mask" : ""}.`
    : "";
  return `${recipe.model} drew it in ${steps} of ${SOLVERS[recipe.solver] ?? recipe.solver}, ${guided}, from seed ${recipe.seed}.${start}`;
}

/** Returns a list of the recipe's settings. Those that are as usual are left out. */
export function settingsList(recipe) {
  const rows = Object.entries(NAMES)
    .filter(([name]) => recipe[name] !== undefined && recipe[name] !== null)
    .filter(([name]) => JSON.stringify(recipe[name]) !== JSON.stringify(USUAL[name]))
    .map(([name, label]) => element("div", {},
      element("dt", {}, label), element("dd", { class: "figures" }, shown(name, recipe[name]))));
  return element("dl", { class: "settings" }, rows);
}
