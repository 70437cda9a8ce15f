// One sample grid: each prompt with its pictures side by side, cut out of the stored sheet.

import { element } from "../dom.js";

/** Returns the pictures of a grid by prompt, or the whole sheet if it does not say where they are.
 * `open(cell)` is called with the cell that was chosen, or with null. */
export function gridPicture(grid, source, open) {
  const image = new Image();
  image.src = source;
  if (!grid.cells.length) {
    image.alt = `Sample grid of step ${grid.step}`;
    image.width = grid.width;
    image.height = grid.height;
    image.className = "sample-sheet";
    return element("button", { class: "sample-open", type: "button", onClick: () => open(null) }, image);
  }
  const prompts = [...new Set(grid.cells.map((cell) => cell.prompt))];
  return element(
    "div",
    { class: "sample-prompts" },
    prompts.map((prompt) => pictures(grid, prompt, image, open)),
  );
}

// The pictures of a prompt: a column for each set of parameters, a row for each seed.
function pictures(grid, prompt, image, open) {
  const cells = grid.cells.filter((cell) => cell.prompt === prompt);
  const labels = [...new Set(cells.map((cell) => cell.label))];
  const ordered = [...cells].sort((a, b) => a.number - b.number || labels.indexOf(a.label) - labels.indexOf(b.label));
  return element(
    "figure",
    { class: "sample-prompt" },
    element("figcaption", { dir: "auto" }, prompt || "(no prompt)"),
    element(
      "div",
      { class: "sample-cells", style: { "grid-template-columns": `repeat(${labels.length}, minmax(0, 1fr))` } },
      labels.map((label) => element("span", { class: "sample-label" }, label)),
      ordered.map((cell) => picture(grid, cell, image, open)),
    ),
  );
}

function picture(grid, cell, image, open) {
  const canvas = cut(image, cell);
  canvas.setAttribute("aria-hidden", "true");
  return element(
    "button",
    { class: "sample-open", type: "button", title: "Show large", onClick: () => open(cell) },
    canvas,
    element("span", { class: "visually-hidden" }, `${labelOf(cell)}, step ${grid.step}: ${cell.prompt}`),
  );
}

/** Returns the name of the parameters that drew a cell, with the number of its seed if it has
 * several. */
export function labelOf(cell) {
  return cell.number ? `${cell.label} · seed ${cell.number + 1}` : cell.label;
}

/** Returns a canvas with the part of a sheet that a cell has, drawn once the sheet is there. */
export function cut(image, cell) {
  const [left, top, width, height] = cell.box;
  const canvas = element("canvas", { width, height });
  const draw = () => canvas.getContext("2d").drawImage(image, left, top, width, height, 0, 0, width, height);
  if (image.complete && image.naturalWidth) draw();
  else image.addEventListener("load", draw, { once: true });
  return canvas;
}
