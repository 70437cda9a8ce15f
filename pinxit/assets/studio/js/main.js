// The page's frame: navigation by the address's hash, theme, messages.

import * as api from "./api.js";
import { element, replace } from "./dom.js";
import { setUpTheme } from "./theme.js";

const VIEWS = [
  ["draw", "Draw", () => import("./draw/view.js")],
  ["compare", "Compare", () => import("./compare/view.js")],
  ["runs", "Runs", () => import("./runs/view.js")],
  ["data", "Data", () => import("./data/view.js")],
  ["plan", "Plan", () => import("./plan/view.js")],
];
const SHOWN = 8000; // milliseconds that a message stays

const root = document.getElementById("view");
const messages = document.getElementById("messages");
let unmount = () => {};
let turn = 0;

/** Shows a message for some seconds; errors stay until they are closed. */
function say(text, kind = "info") {
  const close = element("button", { type: "button", "aria-label": "Close the message" }, "×");
  const message = element("div", { class: `message ${kind}` }, element("span", {}, text), close);
  close.addEventListener("click", () => message.remove());
  messages.append(message);
  if (kind !== "error") setTimeout(() => message.remove(), SHOWN);
}

function navigate(path) {
  location.hash = `#/${path.replace(/^[#/]+/, "")}`;
}

function current() {
  const [name, ...rest] = location.hash.replace(/^#\/?/, "").split("/");
  return [name || "draw", rest.map(decodeURIComponent).join("/")];
}

async function show() {
  const [name, rest] = current();
  const view = VIEWS.find(([key]) => key === name) ?? VIEWS[0];
  const mine = (turn += 1);
  showNavigation(view[0]);
  document.title = `${view[1]} · Pinxit studio`;
  unmount();
  unmount = () => {};
  try {
    const module = await view[2]();
    if (mine !== turn) return;
    const place = element("div", { class: `view-${view[0]}` });
    replace(root, place);
    unmount = module.mount(place, { api, navigate, say }, rest) ?? (() => {});
  } catch (error) {
    if (mine !== turn) return;
    replace(root, element("p", { class: "empty" }, `This view could not be shown: ${error.message}`));
    throw error;
  }
}

function showNavigation(chosen) {
  const links = VIEWS.map(([name, title]) => {
    const here = name === chosen ? { "aria-current": "page" } : {};
    return element("a", { href: `#/${name}`, ...here }, title);
  });
  replace(document.getElementById("views"), links);
}

setUpTheme(document.getElementById("theme"));
document.querySelector(".skip").addEventListener("click", (event) => {
  event.preventDefault();
  root.focus();
});
addEventListener("hashchange", (event) => {
  show();
  if (event.isTrusted) root.focus({ preventScroll: true });
});
show();
