// Creates elements. Texts always become text nodes, so that no text can become markup.

const SVG = "http://www.w3.org/2000/svg";

/** Returns an element. `properties` are attributes; on<Event> adds a listener, `dataset` and
 * `style` take objects, and true or false sets or omits an attribute. */
export function element(tag, properties = {}, ...children) {
  return filled(document.createElement(tag), properties, children);
}

/** Returns an element of an SVG drawing. */
export function drawing(tag, properties = {}, ...children) {
  return filled(document.createElementNS(SVG, tag), properties, children);
}

function filled(node, properties, children) {
  for (const [name, value] of Object.entries(properties ?? {})) {
    if (name.startsWith("on")) {
      if (typeof value !== "function") throw new TypeError(`${name} is not a function`);
      node.addEventListener(name.slice(2).toLowerCase(), value);
    } else if (name === "dataset") {
      Object.assign(node.dataset, value);
    } else if (name === "style") {
      for (const [rule, setting] of Object.entries(value)) node.style.setProperty(rule, setting);
    } else if (name === "value" || name === "checked") {
      node[name] = value;
    } else if (value !== false && value !== null && value !== undefined) {
      node.setAttribute(name, value === true ? "" : String(value));
    }
  }
  node.append(...texts(children));
  return node;
}

function texts(children) {
  return children.flat(Infinity).filter((child) => child !== null && child !== undefined && child !== false)
    .map((child) => (child instanceof Node ? child : document.createTextNode(String(child))));
}

/** Replaces everything inside an element. */
export function replace(node, ...children) {
  node.replaceChildren(...texts(children));
  return node;
}

let numbers = 0;

/** Returns a new id for an element. */
export function newId(prefix = "e") {
  numbers += 1;
  return `${prefix}-${numbers}`;
}

/** Returns a labelled control: `control` gets an id and, with a hint, a description. */
export function field(label, control, hint = "") {
  control.id ||= newId("field");
  return element("div", { class: "field" },
    element("label", { for: control.id }, label), control, hint ? hintOf(control, hint) : null);
}

/** Returns a hint that describes a control. */
export function hintOf(control, text = "") {
  const id = newId("hint");
  control.setAttribute("aria-describedby", id);
  return element("span", { class: "hint", id }, text);
}
