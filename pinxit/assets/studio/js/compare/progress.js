// A comparison that is being drawn: its progress, its cells, and in the end its sheet.

import { copy } from "../command_line.js";
import { element, replace } from "../dom.js";
import { workOf } from "../draw/speed.js";
import { duration } from "../draw/words.js";
import { plural } from "../quantities.js";
import { TAB, forget, remember, remembered } from "../storage.js";
import { board } from "./board.js";

const AGAIN = 3000; // milliseconds between attempts to reach the server
const KEY = "pinxit-grid";

/** Returns the comparison that this window draws, after a reload, or null. */
export async function runningGrid(api) {
  const id = remembered(TAB, KEY);
  if (!id) return null;
  const answer = await api.get("/studio/grids");
  return answer.data.find((grid) => grid.id === id) ?? null;
}

/** Follows a comparison. Returns its node and the function that ends following. */
export function followGrid({ api, say, grid, onPace, onAgain }) {
  const path = `/studio/grids/${encodeURIComponent(grid.id)}`;
  const status = element("p", { class: "status" });
  const bar = element("progress", { max: grid.total, value: 0, "aria-label": "Progress of the comparison" });
  const cancel = element("button", { type: "button", class: "button" }, "Cancel");
  const head = element("div", { class: "stage-head" }, element("div", { class: "row apart" }, status, cancel), bar);
  const notes = element("div", { class: "stack tight notes" });
  const cells = board(grid);
  const place = element("div", {}, cells.node);
  const live = element("p", { class: "visually-hidden", role: "status" });
  const node = element("div", { class: "stack" }, head, notes, place, live);
  const begun = performance.now() / 1000;
  let done = 0;
  let work = 0;
  let first = null;
  let close = () => {};
  let timer = null;
  let ended = false;

  remember(TAB, KEY, grid.id);

  function count(number) {
    done += 1;
    const now = performance.now() / 1000;
    if (first === null) first = now; // the first picture may include the compilation
    else work += workOf(grid.cells[number]);
    const pace = work > 0 && now > first ? (now - first) / work : null;
    if (pace && done === grid.total && done > 3) onPace(pace);
    const rest = grid.cells.reduce((sum, cell) => sum + workOf(cell), 0) * (1 - done / grid.total);
    bar.value = done;
    const left = pace && done < grid.total ? ` · about ${duration(pace * rest)} left` : "";
    status.textContent = `${done} of ${plural(grid.total, "picture")}${left}`;
  }

  function open() {
    close();
    done = work = 0;
    first = null;
    status.textContent = `0 of ${plural(grid.total, "picture")}`;
    close = api.events(`${path}/events`, {
      cell: ({ cell }) => {
        notes.querySelector(".unreachable")?.remove();
        cells.fill(cell, api.address(`${path}/cells/${cell}`));
        count(cell);
      },
      ended: finish,
    }, broken);
  }

  async function broken() {
    close();
    if (ended) return;
    try {
      await api.get(path);
      open();
    } catch (error) {
      if (error.status === 404) {
        finish({ state: "failed", error: "The server was started again and no longer knows this comparison.", warnings: [] });
        return;
      }
      status.textContent = "The connection to the server broke. Trying again …";
      if (!notes.querySelector(".unreachable")) note(`${error.message} What you asked for is still in the form.`, "bad unreachable");
      timer = setTimeout(broken, AGAIN);
    }
  }

  function note(text, kind, ...buttons) {
    notes.append(element("div", { class: `note ${kind}`, role: kind.startsWith("bad") ? "alert" : null }, element("p", {}, text),
      buttons.length ? element("div", { class: "row" }, buttons) : null));
  }

  function finish({ state, error, stored, warnings }) {
    close();
    ended = true;
    const focused = head.contains(document.activeElement);
    head.hidden = true;
    for (const text of warnings ?? []) note(text, "warn");
    if (state === "done") showSheet(stored, performance.now() / 1000 - begun);
    else {
      const again = element("button", { type: "button", class: "button small", onClick: onAgain }, "Draw it again");
      note(state === "cancelled" ? "The comparison was cancelled." : `The comparison failed: ${error}`, state === "cancelled" ? "" : "bad", again);
    }
    live.textContent = state === "done" ? "The comparison is finished." : `The comparison was ${state}.`;
    if (focused) node.querySelector("a, .notes button")?.focus();
    if (state !== "done") forget(TAB, KEY);
  }

  function showSheet(name, seconds) {
    const address = api.address(`/studio/gallery/${encodeURIComponent(name)}`);
    const sheet = element("img", { src: address, alt: `The comparison as one sheet: ${grid.prompt || "several prompts"}`, class: "sheet" });
    const words = seconds > 1 ? `${plural(grid.total, "picture")} in ${duration(seconds)}.` : "";
    replace(place, element("a", { href: address, target: "_blank", rel: "noopener", title: "Open the sheet at its own size" }, sheet),
      element("div", { class: "row sheet-actions" },
        element("a", { class: "button primary", href: address, download: name }, "Download the sheet"),
        element("button", { type: "button", class: "button", onClick: () => copy(grid.command, say) }, "Copy the command"),
        element("span", { class: "hint" }, `${words} Saved in the gallery as ${name}.`)));
  }

  cancel.addEventListener("click", async () => {
    cancel.disabled = true;
    try {
      await api.remove(path);
    } catch (error) {
      cancel.disabled = false;
      say(error.message, "error");
    }
  });
  if (grid.state === "drawing") open();
  else finish(grid);
  return {
    node,
    end() {
      ended = true;
      clearTimeout(timer);
      close();
    },
  };
}
