// The picture that drawing starts from, its strength, and the mask of the part that is drawn again.

import { element, field, replace } from "../dom.js";
import { maskPainter } from "./mask_painter.js";

const TYPES = "image/png,image/webp,image/jpeg";

/** Returns the data URL of a file. */
function dataUrl(file) {
  return new Promise((resolve, reject) => {
    const reader = new FileReader();
    reader.addEventListener("load", () => resolve(reader.result));
    reader.addEventListener("error", () => reject(new Error(`${file.name} cannot be read.`)));
    reader.readAsDataURL(file);
  });
}

/** Returns a stored picture as a file. */
export async function storedFile(api, { name, url }) {
  const answer = await fetch(api.address(url));
  return new File([await answer.blob()], name, { type: answer.headers.get("content-type") ?? "" });
}

function picked(label, onFile) {
  const input = element("input", { type: "file", accept: TYPES, class: "visually-hidden", tabindex: -1, "aria-hidden": "true" });
  const button = element("button", { type: "button", class: "button small", onClick: () => input.click() }, label);
  input.addEventListener("change", () => {
    if (input.files[0]) onFile(input.files[0]);
    input.value = "";
  });
  return [button, input];
}

/** Returns the section of the form. `read()` gives image, mask, their names and the strength. */
export function sourceImage(say) {
  const body = element("div", { class: "stack tight" });
  const summary = element("summary", {}, "Start from an image");
  const node = element("details", { class: "more source" }, summary, body);
  const strength = element("input", { type: "range", name: "strength", min: 0.05, max: 1, step: 0.05 });
  const shown = element("output", { class: "figures" });
  let image = null;
  let mask = null;
  let painter = null;

  function showStrength() {
    shown.textContent = strength.value;
    strength.setAttribute("aria-valuetext", `${strength.value} of the steps are made`);
  }
  strength.addEventListener("input", showStrength);

  function set(value) {
    strength.value = value;
    showStrength();
  }

  function show() {
    summary.textContent = image ? `Starts from ${image.name || "an image"}` : "Start from an image";
    if (!image) {
      replace(body,
        element("p", { class: "hint" }, "The picture keeps the layout of this image. Choose a file, or drop or paste one."),
        element("div", { class: "row" }, picked("Choose an image", setImage)));
      return;
    }
    const preview = element("img", { src: image.url, alt: `The image to start from: ${image.name}`, class: "source-picture" });
    const buttons = [];
    if (painter) buttons.push(button("Remove the mask", removeMask));
    else if (mask) buttons.push(button("Remove the mask", removeMask));
    else buttons.push(button("Paint a mask", paint), ...picked("Mask from a file", setMask));
    buttons.push(button("Remove the image", clear));
    const control = field("Strength", strength, painter || mask ? "How much the masked part changes." : "How much changes: a small value keeps the image, 1 ignores it.");
    control.querySelector("label").append(" ", shown);
    replace(body, painter ? painter.node : preview,
      mask ? element("p", { class: "hint" }, `Mask: ${mask.name}. Its white part is drawn again.`) : null,
      element("div", { class: "row" }, buttons), control);
  }

  function button(label, act) {
    return element("button", { type: "button", class: "button small", onClick: act }, label);
  }

  async function setImage(file, { strength: chosen = 0.6 } = {}) {
    try {
      const url = await dataUrl(file);
      const loaded = element("img", { src: url, alt: "" });
      await loaded.decode();
      image = { url, name: file.name ?? "", width: loaded.naturalWidth, height: loaded.naturalHeight };
    } catch {
      say(`${file.name || "The file"} is not a picture that the browser can show.`, "error");
      return false;
    }
    mask = null;
    painter = null;
    node.open = true;
    set(chosen);
    show();
    return true;
  }

  async function setMask(file) {
    mask = { url: await dataUrl(file), name: file.name ?? "" };
    set(1);
    show();
  }

  function paint() {
    const under = element("img", { src: image.url, alt: "" });
    painter = maskPainter(under, image.width, image.height);
    set(1);
    show();
    painter.node.querySelector("input").focus();
  }

  function removeMask() {
    mask = null;
    painter = null;
    set(0.6);
    show();
  }

  function clear() {
    image = null;
    removeMask();
    summary.focus();
  }

  function read() {
    if (!image) return {};
    const values = { image: image.url, image_name: image.name, strength: Number(strength.value) };
    if (painter?.painted()) return { ...values, mask: painter.read(), mask_name: "painted-mask.png" };
    return mask ? { ...values, mask: mask.url, mask_name: mask.name } : values;
  }

  set(0.6);
  show();
  return {
    node, read, setImage, clear,
    get size() {
      return image ? [image.width, image.height] : null;
    },
  };
}
