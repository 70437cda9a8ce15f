// How fast this server draws, as this browser measured it, for estimates.

import { BROWSER, remember, remembered } from "../storage.js";

const KEY = "pinxit-pace";
const EVALUATIONS = { heun: 2, midpoint: 2 };

/** Returns the work of a picture: evaluations of the network, by pixels. */
export function workOf({ steps, solver, guidance_scale: guidance, size }) {
  const [width, height] = Array.isArray(size) ? size : String(size).split("x").map(Number);
  return steps * (EVALUATIONS[solver] ?? 1) * (guidance === 1 ? 1 : 2) * width * height;
}

/** Keeps the seconds that a unit of work took in a finished job. */
export function rememberPace(job, pace) {
  const recipe = job.pictures.find((picture) => picture.recipe)?.recipe;
  if (job.state !== "done" || !recipe || !pace?.secondsPerStep || !recipe.steps) return;
  keepPace(pace.secondsPerStep / (workOf(recipe) / recipe.steps));
}

/** Keeps the seconds of a unit of work. */
export function keepPace(seconds) {
  if (seconds > 0) remember(BROWSER, KEY, String(seconds));
}

/** Returns the seconds of a unit of work, or null before the first measurement. */
export function knownPace() {
  const seconds = Number(remembered(BROWSER, KEY));
  return seconds > 0 ? seconds : null;
}
