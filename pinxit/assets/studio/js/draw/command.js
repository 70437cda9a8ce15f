// The command that draws a picture again, for a shell.

const SAMPLING = ["steps", "guidance_scale", "solver", "shift", "spacing", "guidance_interval",
  "cfg_zero_star", "zero_init"];

/** Returns a word as a POSIX shell takes it. */
function quoted(word) {
  return /^[A-Za-z0-9_@%+=:,./-]+$/.test(word) ? word : `'${String(word).replaceAll("'", "'\"'\"'")}'`;
}

function option(name, value) {
  if (typeof value === "boolean") return [`--${name}`, value ? "1" : "0"];
  if (Array.isArray(value)) return [`--${name}`, ...value.map(String)];
  return [`--${name}`, quoted(String(value))];
}

function same(one, other) {
  return JSON.stringify(one) === JSON.stringify(other);
}

/** Returns the command `pinxit generate` for a recipe. Settings that the `model` (an entry of
 * /studio/defaults, or null) has by default are left out. */
export function generateCommand(recipe, model = null) {
  const words = ["pinxit", "generate"];
  if (model?.checkpoint) words.push(...option("checkpoint", model.checkpoint));
  words.push("--seed", String(recipe.seed));
  const [width, height] = recipe.size;
  const usual = model?.image_size;
  if (width !== usual || height !== usual) words.push("--size", `${width}x${height}`);
  if (recipe.negative_prompt) words.push(...option("negative_prompt", recipe.negative_prompt));
  for (const name of SAMPLING) {
    const value = recipe[name];
    if (value === undefined || value === null) continue;
    const known = model?.sampling && name in model.sampling;
    if (known && same(model.sampling[name], value)) continue;
    words.push(...option(name, value));
  }
  if (recipe.image) {
    words.push(...option("image", recipe.image.name || "IMAGE"));
    if (recipe.image.mask_sha256) words.push(...option("mask", recipe.image.mask_name || "MASK"));
    words.push(...option("strength", recipe.image.strength));
  }
  if (recipe.encoder_dtype && recipe.encoder_dtype !== "float32") {
    words.push(...option("encoder_dtype", recipe.encoder_dtype));
  }
  return `${words.join(" ")} -- ${quoted(recipe.prompt)}`;
}
