// Small helpers for the document.

const SVG = new Set(["svg", "polyline", "line", "circle", "text", "path"]);

/** An element with attributes (functions are listeners), and children that are nodes or text. */
export function element(tag, attributes = {}, ...children) {
  const made = SVG.has(tag) ? document.createElementNS("http://www.w3.org/2000/svg", tag) : document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (typeof value === "function") made.addEventListener(name, value);
    else if (value === true) made.setAttribute(name, "");
    else if (value !== false && value !== null && value !== undefined) made.setAttribute(name, value);
  }
  made.append(...children.filter((child) => child !== null && child !== ""));
  return made;
}

export const byId = (id) => document.getElementById(id);

/** Says something to everybody: it is shown for a while, and read out by screen readers. */
export function announce(message, { wrong = false } = {}) {
  const place = byId("status");
  place.textContent = message;
  place.classList.toggle("wrong", wrong);
  place.classList.add("shown");
  clearTimeout(announce.timer);
  announce.timer = setTimeout(() => place.classList.remove("shown"), wrong ? 9000 : 3500);
}

export const percent = (share) => `${Math.round(100 * share)} %`;
export const count = (n, one, many = `${one}s`) => `${n.toLocaleString("en")} ${n === 1 ? one : many}`;
