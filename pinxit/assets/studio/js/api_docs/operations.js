// Reads the operations of an OpenAPI description.

const METHODS = ["get", "post", "put", "patch", "delete"];
const FIRST = ["images", "jobs", "models"];

/** Returns all operations, each with its group, parameters, bodies and answers. */
export function operationsOf(description) {
  const operations = [];
  for (const [path, methods] of Object.entries(description.paths ?? {})) {
    for (const method of METHODS) {
      if (method in methods) operations.push(operation(path, method, methods[method]));
    }
  }
  return operations.sort((one, other) => rank(one.group) - rank(other.group));
}

/** Returns the position of a group: what programs use most comes first, supervision last. */
function rank(group) {
  const name = group.toLowerCase();
  if (name === "monitoring") return FIRST.length + 1;
  return FIRST.includes(name) ? FIRST.indexOf(name) : FIRST.length;
}

function operation(path, method, details) {
  const text = details.description ?? "";
  const sentence = text.split(/\n\s*\n|(?<=[.:])\s/)[0].replaceAll(/\s+/g, " ").replace(/[.:]$/, "");
  const summary = sentence || (details.summary ?? "");
  return {
    path,
    method,
    summary,
    text,
    id: `${method}${path}`.replaceAll(/[^A-Za-z0-9]+/g, "-"),
    group: capitalised(details.tags?.[0] ?? groupOf(path)),
    parameters: details.parameters ?? [],
    bodies: contents(details.requestBody?.content),
    answers: Object.entries(details.responses ?? {}).map(([status, answer]) => ({
      status,
      text: answer.description ?? "",
      media: Object.keys(answer.content ?? {}).join(", "),
    })),
    words: `${method} ${path} ${summary} ${text}`.toLowerCase(),
  };
}

function contents(content) {
  return Object.entries(content ?? {}).map(([media, { schema }]) => ({ media, schema }));
}

function groupOf(path) {
  const [first, second] = path.split("/").filter(Boolean);
  const name = first === "v1" || first === "studio" ? second ?? first : first ?? "page";
  return name;
}

function capitalised(name) {
  return name.charAt(0).toUpperCase() + name.slice(1);
}
