// Pages through rows, and searches them: an answer that came only part of the way is continued until
// a page is full, the end is reached, or the reader stops it.

import { element, newId, replace } from "../dom.js";
import { count } from "../quantities.js";

const TYPING = 350; // milliseconds after the last key before a search begins

/** Shows a toolbar with a search, the rows of one page, and the buttons of a pager.
 * `query(state)` returns the path of a request; `show(rows, first)` returns the nodes of a page. */
export function pages(panel, { api, query, show, label, noun, size, filters = [], empty }) {
  const state = { start: 0, search: "", earlier: [], next: 0, total: 0 };
  let turn = 0;
  let timer = null;
  const input = element("input", { type: "search", id: newId("search"), autocomplete: "off", maxlength: 500 });
  const status = element("p", { class: "hint data-status", role: "status" });
  const damage = element("div", { class: "stack tight data-damage" });
  const place = element("div", { class: "data-rows" });
  const stop = element("button", { class: "button", type: "button", onClick: halt, hidden: true }, "Stop");
  const progress = element("progress", { max: 1, value: 0, "aria-label": "Part of the rows that has been searched", hidden: true });
  const back = element("button", { class: "button", type: "button", onClick: () => go(state.earlier.pop() ?? 0) }, "Previous");
  const more = element("button", { class: "button", type: "button", onClick: forward }, "Next");
  const slider = element("input", { type: "range", min: 0, step: 1, value: 0, id: newId("jump"), onChange: jump });
  const jumps = element("div", { class: "row data-jump" }, element("label", { for: slider.id, class: "hint" }, "Jump to"), slider);
  const controls = element("div", { class: "toolbar" },
    element("div", { class: "field data-search" }, element("label", { for: input.id }, label), input), filters, stop);
  replace(panel, element("div", { class: "stack" }, controls, status, progress, damage, place,
    element("nav", { class: "row data-pager", "aria-label": "Pages" }, back, more, jumps)));
  input.addEventListener("input", () => {
    clearTimeout(timer);
    timer = setTimeout(restart, TYPING);
  });
  input.addEventListener("keydown", (event) => {
    if (event.key !== "Enter") return;
    clearTimeout(timer);
    restart();
  });

  function restart() {
    state.search = input.value.trim();
    state.earlier = [];
    go(0);
  }

  function forward() {
    state.earlier.push(state.start);
    go(state.next);
  }

  function jump() {
    state.earlier = [];
    go(Number(slider.value));
  }

  function halt() {
    turn += 1;
    finish(true);
  }

  async function go(start) {
    const mine = (turn += 1);
    Object.assign(state, { start, next: start, rows: [], looked: 0, damaged: {} });
    place.setAttribute("aria-busy", "true");
    replace(damage);
    for (;;) {
      let answer;
      try {
        answer = await api.get(query({ ...state, limit: size - state.rows.length }));
      } catch (error) {
        if (mine === turn) fail(error);
        return;
      }
      if (mine !== turn) return;
      Object.assign(state, { next: answer.next, total: answer.total, answer });
      state.looked += answer.searched;
      state.rows.push(...answer.rows);
      Object.assign(state.damaged, answer.damaged);
      const goesOn = answer.more && state.rows.length < size && answer.searched > 0;
      if (state.rows.length || !goesOn) replace(place, show(state.rows, state));
      if (!goesOn) break;
      progress.hidden = stop.hidden = false;
      progress.value = state.total ? state.next / state.total : 0;
      status.textContent = `Searched ${count(state.next)} of ${count(state.total)} rows, found ${count(state.rows.length)} …`;
    }
    finish(false);
  }

  function finish(stopped) {
    place.removeAttribute("aria-busy");
    progress.hidden = stop.hidden = true;
    const left = state.next < state.total;
    const found = state.rows.length;
    const searching = Boolean(state.search) || found !== state.next - state.start;
    if (!found) {
      replace(place, element("p", { class: "empty" }, state.search || stopped ? "Nothing found here." : empty));
    }
    status.textContent = searching || stopped
      ? `${count(found)} found. Searched ${count(state.next)} of ${count(state.total)} rows${left ? "; go on for more" : ""}.`
      : found ? `${count(state.start + 1)} to ${count(state.start + found)} of ${count(state.total)} ${noun}` : "";
    const names = Object.entries(state.damaged);
    replace(damage, names.slice(0, 5).map(([file, reason]) => element("p", { class: "data-note bad" }, `${file} cannot be read: ${reason}. The rest is shown.`)),
      names.length > 5 ? element("p", { class: "data-note bad" }, `${count(names.length - 5)} more files cannot be read.`) : null);
    back.disabled = !state.earlier.length && state.start === 0;
    more.disabled = !left;
    more.textContent = searching && left ? "Go on" : "Next";
    jumps.hidden = searching || state.total <= size;
    slider.max = String(Math.max(0, state.total - 1));
    slider.value = String(state.start);
    back.parentElement.hidden = back.disabled && more.disabled;
  }

  function fail(error) {
    place.removeAttribute("aria-busy");
    progress.hidden = stop.hidden = true;
    status.textContent = "";
    replace(place, element("p", { class: "card error", role: "alert" }, error.message));
  }

  go(0);
  return {
    restart,
    end() {
      turn += 1;
      clearTimeout(timer);
    },
  };
}
