// What is beside the texts: accuracy and its curve, classes, what to label next, what looks wrong.

import { byId, count, element, percent } from "./dom.js";

export const COLOURS = 10;

/** The dot of a class; its colour says nothing that its name does not. */
export const dot = (place) => element("span", { class: `dot c${place % COLOURS}`, "aria-hidden": "true" });

export function drawAccuracy(report, curve) {
  const place = byId("accuracy");
  if (!report || report.accuracy === null) {
    place.replaceChildren(element("p", { class: "quiet" },
      "Not known yet. Label a few texts of each class; until then the model goes by names and descriptions."));
    return;
  }
  const few = report.held_out < 30 ? " Few examples: this is rough." : "";
  place.replaceChildren(
    element("p", { class: "figure" }, percent(report.accuracy)),
    element("p", { class: "quiet" },
      `${report.correct} of ${count(report.held_out, "example")} right when held out (cross-validation).${few}`),
    curve.length > 1 ? drawCurve(curve) : "");
}

function drawCurve(curve) {
  const [width, height, left, bottom] = [260, 110, 30, 16];
  const most = Math.max(...curve.map((point) => point.examples));
  const least = Math.min(...curve.map((point) => point.examples));
  const x = (point) => left + 6 + ((point.examples - least) / Math.max(1, most - least)) * (width - left - 16);
  const y = (share) => 8 + (1 - share) * (height - bottom - 14);
  const share = (point) => point.correct / point.held_out;
  const last = curve[curve.length - 1];
  const lines = [0, 0.5, 1].flatMap((level) => [
    element("line", { class: "grid", x1: left, x2: width, y1: y(level), y2: y(level) }),
    element("text", { x: left - 4, y: y(level) + 4, "text-anchor": "end" }, percent(level).replace(" ", "")),
  ]);
  return element("svg", { class: "curve", viewBox: `0 0 ${width} ${height}`, role: "img",
    "aria-label": `Learning curve: ${curve.map((p) => `${percent(share(p))} with ${p.examples}`).slice(-12).join(", ")} examples` },
  ...lines,
  element("polyline", { points: curve.map((point) => `${x(point)},${y(share(point))}`).join(" ") }),
  element("circle", { cx: x(last), cy: y(share(last)), r: 3.5 }),
  element("text", { x: left + 6, y: height - 2 }, `${least}`),
  element("text", { x: width, y: height - 2, "text-anchor": "end" }, count(most, "example")));
}

export function drawClasses(classes, { onRemove, onAdd }) {
  const rows = classes.map((each, place) => element("li", {},
    dot(place),
    element("span", { class: "grow" }, element("b", { dir: "auto" }, each.label),
      each.description ? element("span", { class: "quiet said", dir: "auto" }, ` ${each.description}`) : ""),
    element("span", { class: "quiet", title: "examples" }, `${each.examples ?? 0}`),
    element("button", { type: "button", class: "bare", "aria-label": `Remove the class ${each.label}`,
      click: () => onRemove(each.label) }, "×")));
  const label = element("input", { "aria-label": "Name of a new class", placeholder: "New class", required: true, dir: "auto" });
  const said = element("input", { "aria-label": "What belongs there", placeholder: "What belongs there", dir: "auto" });
  const form = element("form", { class: "inline", submit: (event) => {
    event.preventDefault();
    onAdd(label.value.trim(), said.value.trim());
  } }, label, said, element("button", {}, "Add"));
  byId("classes").replaceChildren(element("ul", { class: "plain classes" }, ...rows), form);
}

export function drawNext(texts, onPick) {
  const buttons = texts.map((text) => element("li", {},
    element("button", { type: "button", class: "text", dir: "auto", click: () => onPick(text) }, text)));
  byId("next").replaceChildren(texts.length
    ? element("ol", { class: "plain" }, ...buttons)
    : element("p", { class: "quiet" }, "Add texts; the ten from which the model would learn most are listed here."));
}

export function drawDoubt(report, onPick) {
  const confused = (report?.confused ?? []).slice(0, 5).map((pair) => element("li", {},
    element("span", { class: "grow" }, element("b", { dir: "auto" }, pair.label), " taken for ",
      element("b", { dir: "auto" }, pair.predicted)), element("span", { class: "quiet" }, `${pair.examples}`)));
  const suspects = (report?.suspects ?? []).slice(0, 5).map((each) => element("li", {},
    element("button", { type: "button", class: "text", dir: "auto", click: () => onPick(each.text) },
      `${each.text} — ${each.label}, or ${each.rather}?`)));
  const part = (title, items) => (items.length
    ? [element("h3", {}, title), element("ul", { class: "plain" }, ...items)] : []);
  const found = [...part("Confused classes", confused), ...part("Labels that may be wrong", suspects)];
  byId("doubt").replaceChildren(...(found.length ? found : [element("p", { class: "quiet" }, "Nothing looks wrong.")]));
}

export function drawUse(model, origin, example) {
  const body = JSON.stringify({ texts: [example] });
  byId("curl").textContent = `curl -s ${origin}/v1/models/${model}/predict \\\n  -H 'Content-Type: application/json' \\\n`
    + `  -d '${body.replaceAll("'", "'\\''")}'`;
  byId("python").textContent = "from nlpmeta import FewShotClassifier\n\n"
    + `model = FewShotClassifier.from_pretrained("${model}")  # the unpacked folder\n`
    + `model.predict([${JSON.stringify(example)}])`;
}
