// Reads a dropped or pasted picture, and restores the form from it.

import { copy } from "../command_line.js";
import { element, replace } from "../dom.js";
import { storedFile } from "./source_image.js";
import { short } from "./words.js";

const READABLE = 20 * 2 ** 20;

/** Sends a picture to the server and returns what it contains. */
function readPicture(api, file) {
  if (file.size > READABLE) throw new Error(`${file.name} is larger than 20 MB.`);
  const form = new FormData();
  form.append("picture", file, file.name || "the pasted picture");
  return api.upload("/studio/recipe", form);
}

/** Returns the place above the form that says what a picture contained. */
export function restoredNotice({ api, say, form, onDraw }) {
  const node = element("div", { class: "restored", role: "status", hidden: true });
  let shownUrl = "";

  function button(label, act, kind = "") {
    return element("button", { type: "button", class: `button small ${kind}`, onClick: act }, label);
  }

  function hide() {
    node.hidden = true;
    URL.revokeObjectURL(shownUrl);
    replace(node);
  }

  function show(file, about, buttons) {
    URL.revokeObjectURL(shownUrl);
    shownUrl = URL.createObjectURL(file);
    const words = [about.message, ...about.warnings];
    const drawn = about.recipe?.image;
    if (drawn && !form.source.size) {
      const name = drawn.name ? `“${short(drawn.name, 60)}”` : "an image";
      const mask = drawn.mask_sha256 ? " and a mask" : "";
      words.push(`It was drawn from ${name}${mask}, which is not inside the picture: choose it under “Start from an image”.`);
    }
    replace(node,
      element("img", { src: shownUrl, alt: `The picture ${short(file.name || "that was pasted", 60)}`, width: about.width, height: about.height }),
      element("div", { class: "stack tight" },
        words.map((text, i) => element("p", { class: i > 0 ? "warn-text" : "" }, text)),
        about.command ? element("pre", {}, about.command) : null,
        element("div", { class: "row" }, buttons)),
      element("button", { type: "button", class: "close", "aria-label": "Close the note", onClick: hide }, "×"));
    node.hidden = false;
    node.scrollIntoView({ block: "nearest" });
  }

  /** Takes a picture: restores the form, or offers it as the image to start from. */
  async function take(file) {
    let about;
    try {
      about = await readPicture(api, file);
    } catch (error) {
      say(error.message, "error");
      return;
    }
    const start = button("Start from this picture", () => {
      form.source.setImage(file);
      hide();
    });
    if (about.kind === "pinxit") {
      await restore(about.recipe, about.model);
      show(file, about, [button("Draw it again", onDraw, "primary"), start]);
    } else if (about.kind === "other") {
      form.source.clear();
      form.write({ ...about.settings, keep_seed: about.settings.seed !== undefined });
      show(file, about, [button("Draw with these settings", onDraw, "primary"), start]);
    } else if (about.kind === "sheet") {
      show(file, about, [button("Copy the command", () => copy(about.command, say)), start]);
    } else {
      show(file, about, [element("span", {}, start)]);
    }
  }

  /** Fills the form with a recipe, and finds the image that the picture was drawn from. */
  async function restore(recipe, model = null) {
    form.source.clear();
    form.write({ ...recipe, n: 1, keep_seed: true, model: model ?? undefined });
    if (recipe.image) await findSource(recipe.image);
  }

  async function findSource({ name, mask_sha256: masked, strength }) {
    if (!name || masked) return;
    const { pictures: [entry] } = await api.get(`/studio/gallery?name=${encodeURIComponent(name)}`);
    if (!entry) return;
    await form.source.setImage(await storedFile(api, entry), { strength });
  }

  return { node, take, restore, hide };
}
