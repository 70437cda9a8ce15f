// Puts the schemas of an OpenAPI description into words.

const LIMITS = [
  ["minimum", "at least"],
  ["exclusiveMinimum", "more than"],
  ["maximum", "at most"],
  ["exclusiveMaximum", "less than"],
  ["minLength", "at least this many characters:"],
  ["maxLength", "at most this many characters:"],
  ["minItems", "at least this many entries:"],
  ["maxItems", "at most this many entries:"],
];
const DEEPEST = 6;

/** Returns the schema that a reference names, or the schema itself. */
function resolved(schema, description) {
  let current = schema ?? {};
  for (let depth = 0; current.$ref && depth < DEEPEST; depth += 1) {
    const parts = current.$ref.replace(/^#\//, "").split("/");
    current = parts.reduce((node, part) => node?.[part], description) ?? {};
  }
  return current;
}

/** Returns the type of a schema in words. */
export function typeText(schema, description, depth = 0) {
  const one = resolved(schema, description);
  if (depth > DEEPEST) return "…";
  const options = one.anyOf ?? one.oneOf ?? (one.allOf?.length > 1 ? one.allOf : null);
  if (options) return [...new Set(options.map((each) => typeText(each, description, depth + 1)))].join(" or ");
  if (one.allOf) return typeText(one.allOf[0], description, depth + 1);
  if (one.enum) return one.enum.map((value) => JSON.stringify(value)).join(", ");
  if (one.const !== undefined) return JSON.stringify(one.const);
  if (one.type === "array") return `list of ${typeText(one.items, description, depth + 1)}`;
  if (one.contentMediaType || one.format === "binary") return "file";
  const limits = LIMITS.filter(([key]) => one[key] !== undefined).map(([key, text]) => `${text} ${one[key]}`);
  return [one.type ?? one.title ?? "anything", ...limits].join(", ");
}

/** Returns a row for each property of an object's schema. */
export function propertyRows(schema, description) {
  const one = resolved(schema, description);
  const parts = one.allOf ?? one.anyOf ?? one.oneOf ?? [one];
  return parts.map((part) => resolved(part, description)).flatMap((part) =>
    Object.entries(part.properties ?? {}).map(([name, property]) => ({
      name,
      required: part.required?.includes(name) ?? false,
      type: typeText(property, description),
      initial: property.default === undefined || property.default === null ? "" : JSON.stringify(property.default),
      meaning: resolved(property, description).description ?? property.description ?? "",
    })));
}
