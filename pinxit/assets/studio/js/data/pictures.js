// Contact sheets of the kept and of the rejected pictures.

import { address } from "../api.js";
import { element, field, replace } from "../dom.js";
import { count } from "../quantities.js";
import { openLightbox } from "./lightbox.js";
import { pages } from "./pages.js";

const SIZE = 60;

/** Shows the kept pictures in the panel. */
export function keptPanel(panel, context) {
  const { path, dataset } = context;
  const at = (row) => `${path}/pictures/${encodeURIComponent(row.unit)}/${row.number}`;
  return pages(panel, {
    api: context.api,
    label: "Search captions and keys",
    noun: "kept pictures",
    size: SIZE,
    empty: dataset.kept ? "The pictures are not stored any more." : "No picture has been kept.",
    query: ({ start, limit, search }) => `${path}/kept?${new URLSearchParams({ start, limit, search })}`,
    show: (rows) => sheet(rows.map((row) => ({
      small: `${at(row)}?small=true&v=${row.version}`,
      large: `${at(row)}?v=${row.version}`,
      about: `${at(row)}/about`,
      caption: row.caption,
      row,
    })), context),
  });
}

/** Shows the rejected pictures that are stored in the panel. */
export function rejectedPanel(panel, context) {
  const { path } = context;
  const at = (row) => `${path}/previews/${encodeURIComponent(row.file)}/${row.number}`;
  const reasons = element("select", { onChange: () => shown.restart() }, element("option", { value: "" }, "any reason"));
  const shown = pages(panel, {
    api: context.api,
    label: "Search captions and keys",
    noun: "rejected pictures",
    size: SIZE,
    filters: [field("Rejected for", reasons)],
    empty: "No rejected picture is stored. pinxit prepare stores a few for each reason (--previews).",
    query: ({ start, limit, search }) => `${path}/rejected?${new URLSearchParams({ start, limit, search, reason: reasons.value })}`,
    show: (rows, state) => {
      offer(reasons, state.answer.reasons);
      return [
        element("p", { class: "hint" }, "Examples that were stored during the preparation, to judge the limits by eye; not all rejected rows have one."),
        sheet(rows.map((row) => ({
          small: at(row), large: at(row), about: `${at(row)}/about`, caption: row.caption, badge: row.reason, row,
        })), context),
      ];
    },
  });
  return shown;
}

function offer(select, reasons) {
  const chosen = select.value;
  const names = Object.entries(reasons);
  if (chosen && !(chosen in reasons)) names.push([chosen, 0]);
  replace(select, element("option", { value: "" }, "any reason"),
    names.map(([name, rows]) => element("option", { value: name }, `${name} (${count(rows)})`)));
  select.value = chosen;
}

function sheet(cells, context) {
  const list = element("ul", { class: "data-sheet" });
  cells.forEach((cell, index) => {
    const image = element("img", { src: address(cell.small), alt: "", loading: "lazy", decoding: "async" });
    image.addEventListener("error", () => button.classList.add("missing"));
    const button = element("button", {
      type: "button", class: "data-cell",
      onClick: () => openLightbox(cells, index, context, (last) => list.children[last]?.firstElementChild.focus()),
    },
    element("span", { class: "frame" }, image),
    cell.badge ? element("span", { class: "badge", title: cell.badge }, cell.badge.replace(/^filtered_/, "")) : null,
    element("span", { class: "caption", dir: "auto" }, cell.caption || "(no caption)"));
    list.append(element("li", {}, button));
  });
  return list;
}
