// A sample at full size, pixel for pixel: one prompt and seed over all steps, or the whole sheet.

import { withThousands } from "../chart/numbers.js";
import { element, replace } from "../dom.js";
import { cut, labelOf } from "./sample_grid.js";

/** Returns {node, open({view, grid, cell, grids})}. */
export function lightbox({ address }) {
  const state = { open: null };
  const title = element("h2", { id: "sample-title" });
  const body = element("div", { class: "sample-large-body", tabindex: 0, role: "region", "aria-label": "Pictures" });
  const back = element("button", { class: "button", type: "button", onClick: () => move(-1) }, "‹ Earlier");
  const next = element("button", { class: "button", type: "button", onClick: () => move(1) }, "Later ›");
  const close = element("button", { class: "button primary", type: "button", onClick: () => node.close() }, "Close");
  const node = element(
    "dialog",
    { class: "sample-large", "aria-labelledby": "sample-title" },
    element("div", { class: "row apart" }, title, element("div", { class: "row" }, back, next, close)),
    body,
  );
  node.addEventListener("keydown", (event) => {
    if (event.altKey || event.ctrlKey || event.metaKey) return;
    if (event.key === "ArrowLeft") move(-1);
    else if (event.key === "ArrowRight") move(1);
    else return;
    event.preventDefault();
  });
  node.addEventListener("click", (event) => {
    if (event.target === node) node.close();
  });

  function move(by) {
    const { grids, grid } = state.open;
    const index = grids.indexOf(grid) + by;
    if (index >= 0 && index < grids.length) show({ ...state.open, grid: grids[index] });
  }

  function show(open) {
    state.open = open;
    const { view, grid, cell, grids } = open;
    const index = grids.indexOf(grid);
    back.disabled = index <= 0;
    next.disabled = index >= grids.length - 1;
    title.textContent = `Step ${withThousands(String(grid.step))}`;
    if (!cell) {
      replace(body, sheet(address(view, grid), grid));
      return;
    }
    // averages that only the last grid has would leave the row of steps empty
    const label = grids.every((one) => one.cells.some((other) => other.label === cell.label)) ? cell.label : "raw";
    const same = (other) => other.prompt === cell.prompt && other.number === cell.number;
    const image = new Image();
    image.src = address(view, grid);
    replace(
      body,
      element(
        "div",
        { class: "row" },
        grid.cells.filter(same).map((one) => element("figure", { class: "sample-large-cell" }, cut(image, one), element("figcaption", {}, labelOf(one)))),
      ),
      element("p", { dir: "auto" }, cell.prompt),
      element("h3", {}, `The same prompt and seed over the steps (${labelOf({ ...cell, label })})`),
      element("div", { class: "sample-large-strip" }, grids.map((one) => still(one))),
    );

    function still(one) {
      const part = one.cells.find((other) => same(other) && other.label === label);
      if (!part) return null;
      const picture = new Image();
      picture.src = address(view, one);
      return element(
        "button",
        { class: "sample-open", type: "button", "aria-current": one === grid ? "true" : null, onClick: () => show({ ...open, grid: one }) },
        cut(picture, part),
        element("span", { class: "sample-label" }, `step ${withThousands(String(one.step))}`),
      );
    }
  }

  return {
    node,
    open(what) {
      show(what);
      node.showModal();
    },
  };
}

function sheet(source, grid) {
  return element("img", {
    src: source,
    width: grid.width,
    height: grid.height,
    class: "sample-large-sheet",
    alt: `Sample grid of step ${grid.step}`,
  });
}
