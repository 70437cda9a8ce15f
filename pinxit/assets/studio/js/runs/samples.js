// Sample grids over the steps of a run: a slider, a button that plays them, and a large picture.

import { element, newId, replace } from "../dom.js";
import { lightbox } from "./lightbox.js";
import { gridPicture } from "./sample_grid.js";
import { withThousands } from "../chart/numbers.js";

const PAUSE = 800; // milliseconds between two grids while they play

/** Returns {node, update(views), close()}. `address(view, grid)` is where a grid's picture is. */
export function samples(address) {
  const state = { views: [], step: null, timer: null, follow: true };
  const calm = matchMedia("(prefers-reduced-motion: reduce)");
  const pictures = element("div", { class: "stack" });
  const slider = element("input", { type: "range", min: 0, max: 0, step: 1, value: 0, id: newId("grid") });
  const at = element("output", { class: "figures", for: slider.id });
  const back = arrow("‹", "Earlier samples", () => move(-1));
  const next = arrow("›", "Later samples", () => move(1));
  const play = element("button", { class: "button", type: "button", onClick: toggle }, "Play");
  const bar = element(
    "div",
    { class: "row sample-bar" },
    element("label", { for: slider.id }, "Step ", at),
    slider,
    back,
    next,
    play,
  );
  const large = lightbox({ address });
  const hint = element("p", { class: "hint" }, "The same prompts and seeds at every step. raw are the parameters themselves, ema_… their averages over that share of the run. Choose a picture to see it large.");
  const node = element("div", { class: "stack" }, bar, hint, pictures, large.node);
  slider.addEventListener("input", () => {
    stop();
    show(steps()[Number(slider.value)]);
  });
  calm.addEventListener("change", showBar);

  function steps() {
    return [...new Set(state.views.flatMap((view) => view.samples.map((grid) => grid.step)))].sort((a, b) => a - b);
  }

  // Returns the newest grid of a run up to a step.
  function gridOf(view, step) {
    return view.samples.filter((grid) => grid.step <= step).at(-1) ?? view.samples[0] ?? null;
  }

  function show(step) {
    const known = steps();
    state.step = step;
    state.follow = step === known.at(-1);
    at.textContent = step === undefined ? "" : withThousands(String(step));
    slider.setAttribute("aria-valuetext", `step ${at.textContent}`);
    const several = state.views.length > 1;
    replace(
      pictures,
      state.views.map((view) => {
        const grid = gridOf(view, step);
        const head = several ? element("h3", {}, view.name, grid && grid.step !== step ? element("span", { class: "hint" }, ` step ${grid.step}`) : null) : null;
        if (!grid) return element("section", {}, head, element("p", { class: "hint" }, "No samples yet."));
        const open = (cell) => large.open({ view, grid, cell, grids: view.samples });
        return element("section", { class: "stack" }, head, gridPicture(grid, address(view, grid), open));
      }),
    );
    showBar();
  }

  function showBar() {
    const known = steps();
    const index = known.indexOf(state.step);
    slider.max = Math.max(0, known.length - 1);
    slider.value = index;
    back.disabled = index <= 0;
    next.disabled = index >= known.length - 1;
    play.hidden = calm.matches || known.length < 2;
    bar.hidden = known.length === 0;
    slider.disabled = known.length < 2;
  }

  function move(by) {
    stop();
    const known = steps();
    const index = known.indexOf(state.step) + by;
    if (index >= 0 && index < known.length) show(known[index]);
  }

  function toggle() {
    if (state.timer !== null) return stop();
    const known = steps();
    if (state.step === known.at(-1)) show(known[0]);
    play.textContent = "Pause";
    state.timer = setInterval(() => {
      const all = steps();
      const index = all.indexOf(state.step) + 1;
      if (index < all.length) show(all[index]);
      if (index >= all.length - 1) stop();
    }, PAUSE);
    return null;
  }

  function stop() {
    clearInterval(state.timer);
    state.timer = null;
    play.textContent = "Play";
  }

  return {
    node,
    update(views) {
      state.views = views;
      const known = steps();
      node.hidden = known.length === 0;
      show(state.follow || !known.includes(state.step) ? known.at(-1) : state.step);
    },
    close() {
      stop();
      calm.removeEventListener("change", showBar);
    },
  };
}

function arrow(text, label, act) {
  return element("button", { class: "button", type: "button", "aria-label": label, onClick: act }, text);
}
