// The controls for sampling settings, which the views Draw and Compare share.

import { element, field, hintOf, newId, replace } from "../dom.js";

/** The solvers by name, as the page calls them. */
export const SOLVERS = { euler: "Euler", heun: "Heun", midpoint: "Midpoint", dpmpp_2m: "DPM-Solver++ 2M" };
const TWICE = ["heun", "midpoint"];

/** Returns an input for a number. An empty one means the model's default. */
export function numberInput(name, { min, max, step = 1, mode = "numeric" }) {
  return element("input", { name, type: "number", min, max, step, inputmode: mode, autocomplete: "off" });
}

/** Returns the number in an input, or null if it is empty. */
export function numberOf(input) {
  return input.value.trim() === "" ? null : Number(input.value);
}

/** Returns a text area that grows with its text. */
export function growingText(name, { rows, placeholder, maxlength = 32000 }) {
  const area = element("textarea", { name, rows, placeholder, maxlength, class: "growing", spellcheck: "true" });
  area.grow = () => {
    if (CSS.supports("field-sizing", "content")) return;
    area.style.height = "auto";
    area.style.height = `${area.scrollHeight + 2}px`;
  };
  area.addEventListener("input", area.grow);
  return area;
}

/** Returns a checkbox with its label behind it. */
export function checkbox(name, label, hint = "") {
  const box = element("input", { type: "checkbox", name, id: newId("box") });
  const node = element("div", { class: "check" },
    box, element("label", { for: box.id }, label), hint ? hintOf(box, hint) : null);
  return { box, node };
}

/** Calls `act` when a form is sent, also by Ctrl and Enter anywhere in it. */
export function onSent(form, act) {
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    act();
  });
  form.addEventListener("keydown", (event) => {
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) {
      event.preventDefault();
      act();
    }
  });
}

/** Returns the choice of a solver; its `offer(names)` sets the solvers. */
export function solverChoice() {
  const select = element("select", { name: "solver" });
  select.offer = (names, usual) => {
    const chosen = select.value;
    const options = names.map((name) => {
      const words = TWICE.includes(name) ? " (twice the work per step)" : "";
      return element("option", { value: name }, `${SOLVERS[name] ?? name}${words}`);
    });
    if (!usual) options.unshift(element("option", { value: "" }, "The model's own"));
    replace(select, options);
    select.value = names.includes(chosen) ? chosen : usual ?? "";
  };
  return select;
}

/** Returns the choice of a size: some usual ones, or width and height. */
export function sizeChoice(onChange = () => {}) {
  const select = element("select", { name: "size" });
  const width = numberInput("width", { min: 1, max: 16384 });
  const height = numberInput("height", { min: 1, max: 16384 });
  const own = element("div", { class: "own-size row", hidden: true },
    field("Width", width), element("span", { "aria-hidden": "true", class: "times" }, "×"), field("Height", height));
  const node = element("div", { class: "stack tight" }, field("Size", select), own);
  let sizes = [];

  function show() {
    own.hidden = select.value !== "own";
  }

  function offer(model) {
    const before = node.read();
    const side = model?.image_size ?? 0;
    const unit = model?.size_unit ?? 1;
    const whole = (value) => Math.max(unit, Math.round(value / unit) * unit);
    sizes = side
      ? [[side, side, "square"], [whole(side * 1.5), side, "wide"], [side, whole(side * 1.5), "tall"],
        [whole(side * 2), whole(side * 2), "larger than trained"]]
      : [];
    const options = sizes.map(([w, h, words], i) => {
      const usual = i === 0 ? ", as trained" : "";
      return element("option", { value: `${w}x${h}` }, `${w} × ${h}, ${words}${usual}`);
    });
    if (!side) options.push(element("option", { value: "" }, "As the model was trained"));
    replace(select, options, element("option", { value: "own" }, "Another size …"));
    for (const input of [width, height]) {
      input.step = unit;
      input.min = unit;
    }
    if (before) node.write(before);
    show();
  }

  node.read = () => {
    if (select.value !== "own") return select.value;
    return width.value && height.value ? `${width.value}x${height.value}` : "";
  };
  node.write = (text) => {
    const [w, h] = String(text).split("x");
    if ([...select.options].some((option) => option.value === text)) select.value = text;
    else if (w && h) {
      select.value = "own";
      [width.value, height.value] = [w, h];
    }
    show();
  };
  node.offer = offer;
  select.addEventListener("change", () => {
    if (select.value === "own" && !width.value && sizes.length) [width.value, height.value] = sizes[0];
    show();
    onChange();
  });
  node.control = select;
  offer(null);
  return node;
}
