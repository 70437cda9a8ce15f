// Reads the operations of an OpenAPI description.

const METHODS = ["get", "post", "put", "patch", "delete"];

/** Returns all operations, each with its group, parameters, bodies and answers. */
export function operationsOf(description) {
  const operations = [];
  for (const [path, methods] of Object.entries(description.paths ?? {})) {
    for (const method of METHODS) {
      if (method in methods) operations.push(operation(path, method, methods[method]));
    }
  }
  return operations;
}

function operation(path, method, details) {
  const summary = details.summary ?? "";
  const text = details.description ?? "";
  return {
    path,
    method,
    summary,
    text,
    id: `${method}${path}`.replaceAll(/[^A-Za-z0-9]+/g, "-"),
    group: details.tags?.[0] ?? groupOf(path),
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
  return name.charAt(0).toUpperCase() + name.slice(1);
}
