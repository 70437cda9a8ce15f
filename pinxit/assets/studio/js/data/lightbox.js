// A picture at its full size, with its caption, its row and its scores.

import { address } from "../api.js";
import { element, replace } from "../dom.js";
import { bytes, digits } from "../quantities.js";

/** Opens the cell `index` of a sheet. `onClose` receives the index of the cell that was shown last. */
export function openLightbox(cells, index, context, onClose) {
  let at = index;
  let turn = 0;
  const image = element("img", { alt: "" });
  const about = element("div", { class: "stack about" });
  const place = element("span", { class: "hint" });
  const before = element("button", { class: "button", type: "button", onClick: () => show(at - 1) }, "Previous");
  const after = element("button", { class: "button", type: "button", onClick: () => show(at + 1) }, "Next");
  const close = element("button", { class: "button quiet", type: "button", autofocus: true, onClick: () => dialog.close() }, "Close");
  const dialog = element("dialog", { class: "data-lightbox", "aria-label": "Picture" },
    element("div", { class: "row apart bar-top" }, element("div", { class: "row" }, before, after, place), close),
    element("div", { class: "both" }, element("div", { class: "frame" }, image), about));
  dialog.addEventListener("keydown", (event) => {
    if (event.altKey || event.ctrlKey || event.metaKey) return;
    const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (!step || !cells[at + step]) return;
    event.preventDefault();
    show(at + step);
  });
  dialog.addEventListener("click", (event) => {
    if (event.target === dialog) dialog.close();
  });
  dialog.addEventListener("close", () => {
    turn += 1;
    dialog.remove();
    removeEventListener("hashchange", leave);
    onClose(at);
  });
  const leave = () => dialog.close();
  addEventListener("hashchange", leave);
  document.body.append(dialog);
  dialog.showModal();
  show(index);

  async function show(next) {
    if (!cells[next]) return;
    at = next;
    const mine = (turn += 1);
    const cell = cells[at];
    image.src = address(cell.large);
    image.alt = cell.caption || "A picture without a caption";
    before.disabled = at === 0;
    after.disabled = at === cells.length - 1;
    if (!dialog.contains(document.activeElement) || document.activeElement.disabled) close.focus();
    place.textContent = `${at + 1} of ${cells.length} on this page`;
    replace(about, captionOf(cell.caption), element("p", { class: "hint" }, "Reading its row …"));
    try {
      const answer = await context.api.get(cell.about);
      if (mine === turn) replace(about, captionOf(answer.caption), facts(cell, answer, context.dataset));
    } catch (error) {
      if (mine === turn) replace(about, captionOf(cell.caption), element("p", { class: "error", role: "alert" }, error.message));
    }
  }
}

function captionOf(text) {
  return element("p", { class: "caption", dir: "auto" }, text || "(no caption)");
}

function facts(cell, answer, dataset) {
  const row = answer.row ?? {};
  const status = row.status ?? answer.reason ?? "ok";
  const outcome = dataset.outcomes.find((each) => each.status === status);
  const lines = [
    ["Outcome", [element("span", { class: `badge ${status === "ok" ? "good" : "bad"}` }, status), " ", outcome?.meaning ?? ""]],
    ["Detail", row.detail || null],
    ["Original", sized(answer.original)],
    ["Crop", cropped(answer.crop)],
    ["File", answer.bytes ? bytes(answer.bytes) : null],
    ["Key", answer.key],
    ["Name", row.name || null],
    ["URL", row.url ? linked(row.url) : null],
  ].filter(([, value]) => value !== null && value !== undefined && value !== "");
  return [
    element("dl", { class: "data-about" }, lines.map(([label, value]) => [element("dt", {}, label), element("dd", { dir: "auto" }, value)])),
    scoresOf(row, dataset),
    answer.problem ? element("p", { class: "data-note bad" }, `Its row cannot be read: ${answer.problem}.`) : null,
  ];
}

function scoresOf(row, dataset) {
  const scores = Object.entries(row.scores ?? {});
  if (!scores.length) return element("p", { class: "hint" }, "No scores of this row are stored.");
  return element("dl", { class: "data-about" }, scores.map(([name, value]) => {
    const about = dataset.scores.find((each) => each.name === name);
    const limit = about?.limit ?? null;
    const hint = limit === null ? "" : ` (limit: ${about.keeps === "above" ? "at least" : "below"} ${digits(limit)})`;
    return [element("dt", {}, about?.title ?? name), element("dd", {}, digits(value), element("span", { class: "hint" }, hint))];
  }));
}

function sized(size) {
  return Array.isArray(size) && size.length === 2 ? `${size[0]} × ${size[1]} pixels` : null;
}

function cropped(crop) {
  if (!Array.isArray(crop) || crop.length !== 4) return null;
  const [left, top, right, bottom] = crop.map(Number);
  return `${right - left} × ${bottom - top} pixels from (${left}, ${top})`;
}

/** Returns an address as a link that tells the other server nothing, or as text. */
function linked(url) {
  if (!/^https?:\/\//i.test(url)) return url;
  return element("a", { href: url, rel: "noreferrer noopener nofollow", target: "_blank" }, url);
}
