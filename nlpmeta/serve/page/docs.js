// Lists what /openapi.json describes. Nothing comes from another server.
import { element } from "./dom.js";
import { call } from "./api.js";

/** The fields of a schema, a line each; references are followed. */
function fields(schema, all) {
  const found = schema.$ref ? all[schema.$ref.split("/").pop()] : schema;
  const needed = new Set(found.required ?? []);
  return Object.entries(found.properties ?? {}).map(([name, field]) =>
    element("li", {}, element("code", {}, name), ` ${kind(field, all)}${needed.has(name) ? "" : ", optional"}`));
}

function kind(field, all) {
  if (field.$ref) return kind(all[field.$ref.split("/").pop()], all);
  if (field.anyOf) return field.anyOf.map((each) => kind(each, all)).join(" or ");
  if (field.type === "array") return `list of ${kind(field.items ?? {}, all)}`;
  if (field.type === "object" && field.properties) return `{${Object.keys(field.properties).join(", ")}}`;
  return field.type ?? "any";
}

function route(path, method, facts, all) {
  const body = facts.requestBody?.content?.["application/json"]?.schema;
  return element("article", { class: "card" },
    element("h2", {}, element("code", {}, `${method.toUpperCase()} ${path}`)),
    element("p", {}, facts.description ?? facts.summary ?? ""),
    body ? element("ul", {}, ...fields(body, all)) : "");
}

const main = document.getElementById("routes");
try {
  const api = await call("GET", "/openapi.json");
  const all = api.components?.schemas ?? {};
  main.replaceChildren(...Object.entries(api.paths).flatMap(([path, methods]) =>
    Object.entries(methods).map(([method, facts]) => route(path, method, facts, all))));
} catch (error) {
  main.replaceChildren(element("p", { role: "alert" }, error.message));
}
