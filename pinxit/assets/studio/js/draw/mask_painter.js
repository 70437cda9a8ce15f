// Paints the part of a picture that is drawn again: white on black, over the picture.

import { element, field } from "../dom.js";

/** Returns a painter over an image of `width` x `height`. */
export function maskPainter(source, width, height) {
  const canvas = element("canvas", {
    width, height, class: "mask-canvas", role: "img",
    "aria-label": "The mask: paint over the part that is drawn again",
  });
  const pen = canvas.getContext("2d", { willReadFrequently: true });
  const size = element("input", { type: "range", min: 2, max: 50, value: 16 });
  const erase = element("button", { type: "button", class: "button small", "aria-pressed": "false" }, "Erase");
  const clear = element("button", { type: "button", class: "button small" }, "Clear");
  const whole = element("button", { type: "button", class: "button small" }, "Invert");
  let erasing = false;
  let before = null;
  let last = null;

  function place(event) {
    const box = canvas.getBoundingClientRect();
    return [(event.clientX - box.left) * (width / box.width), (event.clientY - box.top) * (height / box.height)];
  }

  function stroke(event) {
    const point = place(event);
    pen.globalCompositeOperation = erasing ? "destination-out" : "source-over";
    pen.strokeStyle = "#fff";
    pen.lineCap = "round";
    pen.lineJoin = "round";
    pen.lineWidth = (Math.min(width, height) * Number(size.value)) / 100;
    pen.beginPath();
    pen.moveTo(...(before ?? point));
    pen.lineTo(...point);
    pen.stroke();
    before = point;
  }

  canvas.addEventListener("pointerdown", (event) => {
    if (event.button !== 0) return;
    canvas.setPointerCapture(event.pointerId);
    before = null;
    last = event.pointerId;
    stroke(event);
    event.preventDefault();
  });
  canvas.addEventListener("pointermove", (event) => {
    if (event.pointerId === last) stroke(event);
  });
  for (const name of ["pointerup", "pointercancel"]) {
    canvas.addEventListener(name, () => {
      last = null;
    });
  }
  erase.addEventListener("click", () => {
    erasing = !erasing;
    erase.setAttribute("aria-pressed", String(erasing));
  });
  clear.addEventListener("click", () => {
    pen.clearRect(0, 0, width, height);
  });
  whole.addEventListener("click", () => {
    pen.globalCompositeOperation = "xor";
    pen.fillStyle = "#fff";
    pen.fillRect(0, 0, width, height);
  });

  const node = element("div", { class: "painter stack tight" },
    element("div", { class: "painted" }, source, canvas),
    field("Brush size", size), element("div", { class: "row" }, erase, clear, whole),
    element("span", { class: "hint" }, "Only the painted part is drawn again."));
  return { node, painted: () => isPainted(pen, width, height), read: () => blackAndWhite(canvas) };
}

function isPainted(pen, width, height) {
  const { data } = pen.getImageData(0, 0, width, height);
  for (let i = 3; i < data.length; i += 4) if (data[i] > 0) return true;
  return false;
}

/** Returns the mask as the data URL of a PNG: white where it is painted, else black. */
function blackAndWhite(canvas) {
  const flat = element("canvas", { width: canvas.width, height: canvas.height });
  const pen = flat.getContext("2d");
  pen.fillStyle = "#000";
  pen.fillRect(0, 0, flat.width, flat.height);
  pen.drawImage(canvas, 0, 0);
  return flat.toDataURL("image/png");
}
