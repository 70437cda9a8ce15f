// The board of a comparison: a table whose cells are filled as their pictures are drawn.

import { element, replace } from "../dom.js";
import { scrollBox } from "../scroll_box.js";

const IN_A_LINE = 8;

/** Returns the board of a grid, as /studio/grids describes it. */
export function board(grid) {
  const [x, y, z] = grid.axes;
  const cells = [];
  const counts = [x, y, z].map((axis) => axis?.labels.length ?? 1);
  const panels = y ? counts[2] : Math.ceil(counts[0] / IN_A_LINE);
  const node = element("div", { class: "board" });
  for (let panel = 0; panel < panels; panel += 1) {
    const first = y ? 0 : panel * Math.ceil(counts[0] / panels);
    const last = y ? counts[0] : Math.min(counts[0], first + Math.ceil(counts[0] / panels));
    const columns = x.labels.slice(first, last);
    const rows = Array.from({ length: counts[1] }, (_, row) => element("tr", {},
      y ? element("th", { scope: "row" }, y.labels[row]) : null,
      columns.map((_, column) => {
        const number = (panel * counts[1] + row) * counts[0] + column;
        return place(y ? number : first + column);
      })));
    const caption = z ? `${z.title}: ${z.labels[panel]}` : "";
    node.append(scrollBox(caption || "The comparison", element("table", {},
      caption ? element("caption", {}, caption) : element("caption", { class: "visually-hidden" }, "The pictures of the comparison"),
      element("thead", {}, element("tr", {},
        y ? element("th", { class: "corner" }, `${y.title} ↓`, element("br"), `${x.title} →`) : null,
        columns.map((label) => element("th", { scope: "col" }, y ? label : `${x.title} ${label}`)))),
      element("tbody", {}, rows))));
  }

  function place(number) {
    const [width, height] = grid.cells[number].size;
    const frame = element("div", { class: "cell waiting", style: { "aspect-ratio": `${width} / ${height}` } });
    const where = { x: x.labels[number % counts[0]], y: y?.labels[Math.floor(number / counts[0]) % counts[1]] };
    cells[number] = { frame, width, height, alt: `${x.title} ${where.x}${y ? `, ${y.title} ${where.y}` : ""}` };
    return element("td", {}, frame);
  }

  /** Shows the picture of a cell. */
  function fill(number, source) {
    const { frame, width, height, alt } = cells[number];
    frame.classList.remove("waiting");
    const kind = Math.max(width, height) < 200 ? "pixels" : "";
    replace(frame, element("img", { src: source, alt, width, height, class: kind }));
  }

  return { node, fill };
}
