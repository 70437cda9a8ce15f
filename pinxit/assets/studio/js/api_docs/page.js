// The page that shows the API, from the description that the server gives of itself.

import { element, replace } from "../dom.js";
import { setUpTheme } from "../theme.js";
import { operationsOf } from "./operations.js";
import { propertyRows, typeText } from "./schemas.js";

const root = document.getElementById("view");

/** Returns the paragraphs of a text. */
function paragraphs(text) {
  return (text ?? "").split(/\n\s*\n/).filter((part) => part.trim())
    .map((part) => element("p", {}, part.trim()));
}

/** Returns a table with a row for each name. Columns without any text are left out. */
function table(title, rows) {
  if (!rows.length) return null;
  const columns = [
    ["Type", (row) => row.type],
    ["Default", (row) => (row.initial === "" ? "" : element("code", {}, row.initial))],
    ["Meaning", (row) => row.meaning],
  ].filter(([, cell]) => rows.some((row) => cell(row) !== ""));
  const heads = ["Name", ...columns.map(([head]) => head)]
    .map((head) => element("th", { scope: "col" }, head));
  const lines = rows.map((row) => element("tr", {},
    element("th", { scope: "row" }, element("code", {}, row.name),
      row.required ? element("span", { class: "needed" }, " required") : null),
    columns.map(([, cell]) => element("td", {}, cell(row)))));
  return element("div", { class: "block" },
    element("h3", {}, title),
    element("div", { class: "wide", tabindex: "0", role: "region", "aria-label": title },
      element("table", {}, element("thead", {}, element("tr", {}, heads)),
        element("tbody", {}, lines))));
}

/** Returns the card of one operation. */
function card(operation, description) {
  const parameters = operation.parameters.map((one) => ({
    name: one.name,
    required: one.required,
    type: `${typeText(one.schema, description)}, in the ${one.in}`,
    initial: one.schema?.default === undefined ? "" : JSON.stringify(one.schema.default),
    meaning: one.description ?? one.schema?.description ?? "",
  }));
  const bodies = operation.bodies.map(({ media, schema }) =>
    table(`Body: ${media}`, propertyRows(schema, description)));
  const answers = operation.answers.map(({ status, text, media }) => element("li", {},
    element("code", {}, status), ` ${text}`, media ? element("span", { class: "hint" }, ` (${media})`) : null));
  return element("details", { class: "card operation", id: operation.id, dataset: { words: operation.words } },
    element("summary", {},
      element("span", { class: `method method-${operation.method}` }, operation.method.toUpperCase()),
      element("code", { class: "path" }, operation.path),
      element("span", { class: "said" }, operation.summary)),
    element("div", { class: "inside" }, paragraphs(operation.text), table("Parameters", parameters), bodies,
      element("div", { class: "block" }, element("h3", {}, "Answers"), element("ul", {}, answers))));
}

/** Shows the operations whose words contain the text. */
function filter(text, sections, count) {
  const wanted = text.trim().toLowerCase();
  let shown = 0;
  for (const section of sections) {
    let visible = 0;
    for (const one of section.querySelectorAll(".operation")) {
      one.hidden = !one.dataset.words.includes(wanted);
      visible += one.hidden ? 0 : 1;
    }
    section.hidden = visible === 0;
    shown += visible;
  }
  count.textContent = shown === 1 ? "1 operation" : `${shown} operations`;
}

/** Builds the page from the description. */
function show(description) {
  const groups = new Map();
  for (const operation of operationsOf(description)) {
    if (!groups.has(operation.group)) groups.set(operation.group, []);
    groups.get(operation.group).push(operation);
  }
  const sections = [...groups].map(([name, operations]) => element("section", { "aria-label": name },
    element("h2", {}, name), operations.map((one) => card(one, description))));
  const count = element("span", { class: "hint", role: "status" });
  const search = element("input", {
    id: "search", type: "search", placeholder: "path or word", autocomplete: "off",
    onInput: () => filter(search.value, sections, count),
  });
  replace(root,
    element("h1", {}, `${description.info.title} API`),
    element("p", { class: "lead" }, "The studio's page uses this API, and so can your programs. ",
      "It has the shape of OpenAI's images API, so its clients work with the address ",
      element("code", {}, new URL("v1", document.baseURI).href), "."),
    element("p", { class: "lead" }, "With a token, send the header ",
      element("code", {}, "Authorization: Bearer TOKEN"), ". This page as a file: ",
      element("a", { href: "openapi.json" }, "openapi.json"), "."),
    element("div", { class: "find" }, element("label", { for: "search" }, "Find"), search, count),
    sections);
  filter("", sections, count);
  open(location.hash.slice(1));
}

/** Opens the operation that the address names, also one that the search hides. */
function open(id) {
  const named = id ? document.getElementById(id) : null;
  if (named?.tagName !== "DETAILS") return;
  if (named.hidden) {
    const search = document.getElementById("search");
    search.value = "";
    search.dispatchEvent(new Event("input"));
  }
  named.open = true;
  named.scrollIntoView();
}

async function start() {
  setUpTheme(document.getElementById("theme"));
  const answer = await fetch("openapi.json");
  if (!answer.ok) throw new Error(`the server answers ${answer.status}`);
  show(await answer.json());
}

start().catch((error) => {
  replace(root, element("p", { class: "empty", role: "alert" }, `The description could not be read: ${error.message}`));
});
addEventListener("hashchange", () => open(location.hash.slice(1)));
