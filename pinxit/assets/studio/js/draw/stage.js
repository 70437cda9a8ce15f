// The stage: the pictures that are forming, in the places where they stay, and the queue.

import { element, replace } from "../dom.js";
import { plural } from "../quantities.js";
import { Pace, duration, short } from "./words.js";

/** Returns the stage. `onOpen(picture)` opens a finished picture, `onCancel(job)` stops a job,
 * `onAgain(request)` asks for lost pictures again. */
export function stage({ onOpen, onCancel, onAgain, onExample }) {
  const status = element("p", { class: "status" });
  const bar = element("progress", { max: 1, value: 0, "aria-label": "Progress of the drawing" });
  const cancel = element("button", { type: "button", class: "button" }, "Cancel");
  const head = element("div", { class: "stage-head", hidden: true },
    element("div", { class: "row apart" }, status, cancel), bar);
  const notes = element("div", { class: "stack tight notes" });
  const tiles = element("div", { class: "tiles" });
  const queue = element("ul", { class: "queue", "aria-label": "Drawings that wait" });
  const live = element("p", { class: "visually-hidden", role: "status" });
  const node = element("section", { class: "stage stack", "aria-label": "Drawing" }, head, notes, tiles, queue, live);
  let shown = null;
  let pace = new Pace();
  let texts = [];

  function empty() {
    const chips = texts.map((text) =>
      element("button", { type: "button", class: "button chip", onClick: () => onExample(text) }, text));
    tiles.classList.remove("many");
    replace(tiles, element("div", { class: "welcome" },
      element("h2", {}, "Describe a picture, and it appears here."),
      chips.length ? element("p", { class: "hint" }, "Or begin with one of these:") : null,
      element("div", { class: "row" }, chips),
      element("p", { class: "hint" }, "Drop a picture that Pinxit drew anywhere on this page to restore its settings.")));
  }

  /** Offers prompts to begin with, while nothing was drawn. */
  function examples(prompts) {
    texts = prompts;
    if (tiles.querySelector(".welcome")) empty();
  }

  function begin(job) {
    shown = job;
    pace = new Pace();
    replace(notes, job.warnings.map((text) => element("p", { class: "note warn" }, text)));
    const [width, height] = sizeOf(job.request);
    tiles.classList.toggle("many", job.pictures.length > 1);
    replace(tiles, job.pictures.map((picture, index) => tile(job, picture, index, width, height)));
    head.hidden = false;
    cancel.hidden = false;
    cancel.disabled = false;
    if (matchMedia("(max-width: 56rem)").matches) node.scrollIntoView({ block: "start", behavior: "smooth" });
    live.textContent = `Drawing ${plural(job.pictures.length, "picture")}.`;
    change(job);
  }

  function tile(job, picture, index, width, height) {
    const image = element("img", { class: "forming", alt: "", width, height, hidden: true });
    const step = element("span", { class: "step figures" });
    picture.image = image;
    picture.step_text = step;
    picture.tile = element("div", { class: "tile waiting", style: { "aspect-ratio": `${width} / ${height}` } }, image, step);
    return picture.tile;
  }

  function change(job) {
    if (job !== shown) return;
    const steps = job.pictures.reduce((sum, each) => sum + each.steps, 0);
    const done = job.pictures.reduce((sum, each) => sum + (each.done ? each.steps : each.step), 0);
    const finished = job.pictures.filter((each) => each.done).length;
    if (job.state === "queued") {
      status.textContent = `In the queue: ${waitingWords(job)}.`;
      bar.removeAttribute("value");
      return;
    }
    const most = Math.max(...job.pictures.map((each) => each.steps));
    if (most === 0) {
      status.textContent = "Getting ready …";
      bar.removeAttribute("value");
      return;
    }
    const all = most * job.pictures.length;
    pace.note(done);
    const total = steps < all ? all : steps;
    bar.max = Math.max(1, total);
    bar.value = done;
    const left = pace.left(total);
    const words = job.pictures.length === 1
      ? `Step ${done} of ${total}`
      : `Picture ${Math.min(finished + 1, job.pictures.length)} of ${job.pictures.length}, step ${done} of ${total}`;
    status.textContent = left === null || done === total ? words : `${words} · ${left < 1 ? "" : "about "}${duration(left)} left`;
    for (const each of job.pictures) {
      if (!each.done && each.step_text) each.step_text.textContent = each.steps ? `${each.step} / ${each.steps}` : "";
    }
  }

  function preview(job, index, source) {
    if (job !== shown) return;
    const { image, tile: place } = job.pictures[index];
    image.src = source;
    image.hidden = false;
    place.classList.remove("waiting");
  }

  function picture(job, index, done) {
    if (job !== shown) return;
    const image = element("img", { src: done.address, alt: job.request.prompt, width: done.recipe.size[0], height: done.recipe.size[1], draggable: "true" });
    const button = element("button", { type: "button", class: "tile", title: "Open this picture",
      style: { "aspect-ratio": `${done.recipe.size[0]} / ${done.recipe.size[1]}` }, onClick: () => onOpen(done, button) }, image);
    done.tile.replaceWith(button);
    done.tile = button;
    const count = job.pictures.filter((each) => each.done).length;
    live.textContent = `Picture ${count} of ${job.pictures.length} is finished.`;
  }

  function end(job) {
    reachable();
    if (job !== shown) return;
    head.hidden = true;
    const focused = head.contains(document.activeElement);
    if (job.state === "done") live.textContent = "The drawing is finished.";
    else {
      for (const each of job.pictures) if (!each.done) each.tile.remove();
      const text = job.state === "cancelled" ? "The drawing was cancelled." : `The drawing failed: ${job.error ?? "the server gives no reason."}`;
      note(text, job.state === "cancelled" ? "info" : "bad", [again(job)]);
      live.textContent = text;
    }
    if (focused) node.querySelector(".tiles button, .notes button")?.focus();
    shown = null;
  }

  function again(job) {
    return element("button", { type: "button", class: "button small", onClick: () => onAgain(job.request) }, "Draw it again");
  }

  function note(text, kind, buttons = []) {
    for (const old of notes.children) if (old.firstElementChild?.textContent === text) old.remove();
    notes.append(element("div", { class: `note ${kind}`, role: kind === "bad" ? "alert" : null },
      element("p", {}, text), buttons.length ? element("div", { class: "row" }, buttons) : null));
  }

  function lost(job, message) {
    if (job === shown) {
      head.hidden = true;
      shown = null;
      for (const each of job.pictures) if (!each.done) each.tile?.remove();
    }
    note(message, "bad", [again(job)]);
  }

  function unreachable(message) {
    status.textContent = "The connection to the server broke. Trying again …";
    bar.removeAttribute("value");
    if (!notes.querySelector(".unreachable")) {
      note(`${message} What you asked for is kept, and drawing goes on here if the server still runs.`, "bad");
      notes.lastElementChild.classList.add("unreachable");
    }
  }

  function reachable() {
    notes.querySelector(".unreachable")?.remove();
  }

  function showQueue(jobs, others) {
    const items = jobs.map((job) => element("li", { class: "row apart" },
      element("span", {}, `“${short(job.request.prompt, 50)}”, ${plural(job.pictures.length, "picture")}: ${waitingWords(job)}`),
      element("button", { type: "button", class: "button small", onClick: () => onCancel(job) }, "Cancel")));
    if (others) items.push(element("li", { class: "hint" }, `Other windows and programs wait for ${plural(others, "picture")}.`));
    replace(queue, items);
    queue.hidden = items.length === 0;
  }

  cancel.addEventListener("click", () => {
    if (!shown) return;
    cancel.disabled = true;
    status.textContent = "Cancelling …";
    onCancel(shown);
  });
  empty();
  showQueue([], 0);
  return {
    node, begin, change, preview, picture, end, lost, unreachable, reachable, note, showQueue, examples,
    get job() { return shown; },
    get pace() { return pace; },
  };
}

/** Says where a job stands in the queue. */
function waitingWords(job) {
  return job.position > 1 ? `${plural(job.position - 1, "drawing")} before yours` : "it is next";
}

function sizeOf(request) {
  const [width, height] = String(request.size ?? "").split("x").map(Number);
  return width > 0 && height > 0 ? [width, height] : [64, 64];
}
