// The teaching page: what the model knows is on the server; this shows it and sends what people say.

import { announce, byId, count, element, percent } from "./dom.js";
import { at, call, Problem, ready, save, setToken, token } from "./api.js";
import { lines, textsOf } from "./csv.js";
import { TextList } from "./list.js";
import { dot, drawAccuracy, drawClasses, drawDoubt, drawNext, drawUse } from "./panels.js";
import { openStart } from "./start.js";

const FIRST = 32; // texts of the first request: those in sight come soon
const MANY = 256; // of those after it
const SURE = 0.8; // how often the labels that are not "unsure" are to be right

const state = { model: null, info: null, texts: [], answers: new Map(), labels: new Map(), report: null, turn: 0 };
const list = new TextList(byId("list"), { draw: drawRow, onFocus: drawNow });

// Requests ----------------------------------------------------------------------------------------------------------

/** Does work, and says what went wrong if anything did; asks for a token where one is needed. */
async function attempt(work) {
  try {
    return await work();
  } catch (error) {
    if (!(error instanceof Problem)) throw error;
    if (error.status === 401) {
      await askToken();
      return attempt(work);
    }
    announce(error.message, { wrong: true });
    return null;
  }
}

function askToken() {
  const dialog = byId("ask");
  dialog.showModal();
  return new Promise((done) => dialog.addEventListener("close", () => { setToken(byId("token").value); done(); }, { once: true }));
}

async function open(model) {
  state.model = model;
  localStorage.setItem("nlpmeta-model", model);
  Object.assign(state, { answers: new Map(), report: null });
  const kept = await attempt(() => call("GET", at(model, "/texts")));
  state.texts = kept?.texts ?? [];
  await learnState();
  showWork();
  list.focus(0);
  byId("list").focus({ preventScroll: true });
  update();
}

/** What the model knows now. */
async function learnState() {
  const info = await attempt(() => call("GET", at(state.model)));
  if (!info) return;
  state.info = info;
  state.labels = new Map(info.examples.map((each) => [each.text, each]));
  if (info.problem) announce(info.problem, { wrong: true });
  drawSide();
}

/** Everything that follows from a change: wait until it is learned, then answer all texts again. */
async function update() {
  const turn = (state.turn += 1);
  const current = () => turn === state.turn;
  byId("learning").textContent = "learning …";
  while (current() && state.info?.learning) {
    await new Promise((done) => setTimeout(done, 150));
    await learnState();
  }
  await answerAll(current);
  if (!current()) return;
  const [report, next] = await Promise.all([
    attempt(() => call("GET", at(state.model, "/report"))),
    state.texts.length ? attempt(() => call("POST", at(state.model, "/suggest"), {})) : null,
  ]);
  if (!current()) return;
  state.report = report;
  state.next = (next?.suggestions ?? []).map((each) => each.text);
  await learnState();
  byId("learning").textContent = "";
}

/** Answers for all texts, those in sight first; those of an older model stay until they are replaced. */
async function answerAll(current) {
  const seen = new Set([list.items[list.current], ...list.inSight()].filter((text) => text !== undefined));
  const rest = state.texts.filter((text) => !seen.has(text));
  const waiting = [...seen, ...rest];
  for (let place = 0, size = FIRST; place < waiting.length && current(); place += size, size = place ? MANY : FIRST) {
    const texts = waiting.slice(place, place + size);
    const found = await attempt(() => call("POST", at(state.model, "/predict"), { texts, top: 100, abstain: SURE }));
    if (!found || !current()) return;
    texts.forEach((text, i) => state.answers.set(text, found.answers[i]));
    const done = Math.min(place + size, waiting.length);
    byId("learning").textContent = done < waiting.length ? `answering ${percent(done / waiting.length)}` : "measuring …";
    if (place === 0 || done === waiting.length || byId("order").value === "given") showTexts();
    else drawNow();
  }
}

/** One change of what the model knows. */
async function change(method, path, body, said) {
  const done = await attempt(() => call(method, at(state.model, path), body));
  await learnState();
  if (done) announce(said);
  showTexts();
  update();
}

/** Labels a text: it shows at once, and goes to the server after what was labelled before. */
function label(text, name) {
  if (text === undefined) return;
  state.labels.set(text, { text, label: name });
  list.focus(list.current + 1);
  const send = () => change("POST", "/examples", { examples: [{ text, label: name }] }, `Labelled ${name}`);
  state.sending = (state.sending ?? Promise.resolve()).then(send);
}

async function unlabel(text) {
  const example = state.labels.get(text);
  if (example?.id) await change("DELETE", `/examples/${example.id}`, undefined, "Label removed");
}

const undo = () => (state.info.changes ? change("POST", "/undo", {}, "Undone") : announce("Nothing to undo"));

async function addTexts(texts) {
  const all = [...new Set([...state.texts, ...texts])];
  if (!(await attempt(() => call("PUT", at(state.model, "/texts"), { texts: all })))) return;
  announce(`${count(all.length - state.texts.length, "text")} added`);
  state.texts = all;
  showTexts();
  update();
}

// What is shown -----------------------------------------------------------------------------------------------------

function showWork() {
  for (const [id, shown] of [["start", false], ["work", true], ["side", true], ["picker", true], ["new", true], ["undo", true], ["take", true]]) {
    byId(id).hidden = !shown;
  }
  document.title = `${state.model} · nlpmeta`;
  showTexts();
}

const places = () => new Map(state.info.classes.map((each, place) => [each.label, place]));

function drawSide() {
  drawAccuracy(state.report, state.info.curve);
  drawClasses(state.info.classes, {
    onRemove: (name) => change("DELETE", `/classes/${encodeURIComponent(name)}`, undefined, `Class ${name} removed; u brings it back`),
    onAdd: (name, description) => change("POST", "/examples", { classes: [{ label: name, description }] }, `Class ${name} added`),
  });
  drawNext((state.next ?? []).filter((text) => !state.labels.has(text)), pick);
  drawDoubt(state.report, pick);
  byId("undo").disabled = !state.info.changes;
  drawFilter();
}

function drawFilter() {
  const filter = byId("filter");
  const options = [["all", "all texts"], ["unsure", "unsure"], ["open", "without your label"], ["labelled", "with your label"],
    ...state.info.classes.map((each) => [`=${each.label}`, each.label])];
  const chosen = filter.value || "all";
  filter.replaceChildren(...options.map(([value, shown]) => element("option", { value }, shown)));
  filter.value = options.some(([value]) => value === chosen) ? chosen : "all";
}

/** The texts that the filter lets through, in the order that was chosen. */
function showTexts(keep = list.items[list.current]) {
  const wanted = byId("filter").value;
  const { answers, labels } = state;
  const is = {
    all: () => true,
    unsure: (text) => !labels.has(text) && answers.get(text)?.unsure,
    open: (text) => !labels.has(text),
    labelled: (text) => labels.has(text),
  }[wanted] ?? ((text) => `=${labels.get(text)?.label ?? answers.get(text)?.label}` === wanted);
  const shown = state.texts.filter(is);
  if (byId("order").value === "unsure") {
    const certainty = (text) => (labels.has(text) ? 2 : answers.get(text)?.probability ?? 1.5);
    shown.sort((one, other) => certainty(one) - certainty(other));
  }
  list.show(shown, keep);
  byId("shown").textContent = count(shown.length, "text");
  drawNow();
}

function drawRow(text) {
  const [given, answer] = [state.labels.get(text), state.answers.get(text)];
  const name = given?.label ?? answer?.label;
  const place = name === undefined ? 0 : places().get(name) ?? 0;
  const verdict = given ? element("span", { class: "chip given" }, dot(place), name, element("span", { class: "tick", "aria-label": "your label" }, " ✓"))
    : answer ? element("span", { class: `chip${answer.unsure ? " unsure" : ""}` }, dot(place), answer.unsure ? `unsure · ${name}` : name)
      : element("span", { class: "chip quiet" }, "…");
  return [element("span", { class: "words", dir: "auto" }, text), verdict,
    element("span", { class: "share quiet" }, given || !answer ? "" : percent(answer.probability))];
}

function drawNow() {
  const text = list.items[list.current];
  byId("text").textContent = text ?? "No texts here. Add some, or show all.";
  if (text === undefined || !state.info) { byId("choices").replaceChildren(); return; }
  const [given, answer] = [state.labels.get(text), state.answers.get(text)];
  const shares = new Map((answer?.top ?? []).map((each) => [each.label, each.probability]));
  byId("choices").replaceChildren(...state.info.classes.map((each, place) => {
    const share = shares.get(each.label);
    const meter = element("span", { class: "meter", "aria-hidden": "true" });
    meter.style.setProperty("--share", share ?? 0);
    return element("button", {
      type: "button", "aria-pressed": String(given?.label === each.label), class: answer?.label === each.label ? "best" : "",
      "aria-keyshortcuts": place < 9 ? String(place + 1) : null, click: () => label(text, each.label),
    }, meter, place < 9 ? element("kbd", {}, String(place + 1)) : "", dot(place), element("span", { dir: "auto" }, each.label),
    element("span", { class: "quiet" }, share === undefined ? "" : percent(share)));
  }));
}

function pick(text) {
  byId("filter").value = "all";
  showTexts(text);
  if (list.items[list.current] !== text) list.show([text, ...list.items], text);
  list.focus(list.items.indexOf(text));
  byId("list").focus({ preventScroll: true });
}

// What people do ----------------------------------------------------------------------------------------------------

function key(event) {
  const typing = event.target.closest("input, textarea, select, dialog, form");
  if (typing || event.ctrlKey || event.metaKey || event.altKey || byId("work").hidden) return;
  const text = list.items[list.current];
  const chosen = /^[1-9]$/.test(event.key) ? state.info.classes[Number(event.key) - 1] : undefined;
  if (chosen) label(text, chosen.label);
  else if (event.key === "u") undo();
  else if (event.key === "n" && state.next?.length) pick(state.next.find((each) => !state.labels.has(each)) ?? state.next[0]);
  else if (event.key === "Delete" || event.key === "Backspace") unlabel(text);
  else return;
  event.preventDefault();
}

async function dropped(event) {
  event.preventDefault();
  const [file] = event.dataTransfer?.files ?? [];
  if (!file) return;
  const texts = textsOf(await file.text(), file.name);
  if (byId("work").hidden) byId("paste").value = texts.join("\n");
  else addTexts(texts);
}

async function drawModels(chosen) {
  const found = await attempt(() => call("GET", "/v1/models"));
  const names = (found?.models ?? []).map((each) => each.name);
  byId("model").replaceChildren(...names.map((name) => element("option", { value: name }, name)));
  if (names.includes(chosen)) byId("model").value = chosen;
  return names;
}

async function created(name, classes, texts) {
  const done = await attempt(() => call("POST", "/v1/models", { name, classes }));
  if (!done) return false;
  if (texts.length) await attempt(() => call("PUT", at(name, "/texts"), { texts }));
  await drawModels(name);
  await open(name);
  return true;
}

async function remove() {
  if (!confirm(`Delete ${state.model} with everything it was taught?`)) return;
  if ((await attempt(() => call("DELETE", at(state.model)).then(() => true))) === null) return;
  byId("use").close();
  localStorage.removeItem("nlpmeta-model");
  location.reload();
}

function wire() {
  byId("model").addEventListener("change", (event) => open(event.target.value));
  byId("new").addEventListener("click", () => openStart(created, { back: showWork }));
  byId("undo").addEventListener("click", undo);
  byId("take").addEventListener("click", () => {
    drawUse(state.model, location.origin, state.texts[0] ?? "a text");
    byId("use").showModal();
  });
  byId("download").addEventListener("click", () => attempt(() => save(at(state.model, "/download"), `${state.model}.zip`)));
  byId("delete").addEventListener("click", remove);
  byId("filter").addEventListener("change", () => showTexts());
  byId("order").addEventListener("change", () => showTexts());
  byId("add").addEventListener("click", () => {
    addTexts(lines(byId("paste-more").value));
    byId("paste-more").value = "";
  });
  byId("file-more").addEventListener("change", async (event) => {
    const [file] = event.target.files;
    if (file) addTexts(textsOf(await file.text(), file.name));
    event.target.value = "";
  });
  document.addEventListener("keydown", key);
  document.addEventListener("dragover", (event) => event.preventDefault());
  document.addEventListener("drop", dropped);
}

async function begin() {
  wire();
  await ready((problem) => announce(problem ?? "The encoder is being loaded …", { wrong: Boolean(problem) }));
  announce("");
  const last = localStorage.getItem("nlpmeta-model");
  const names = await drawModels(last);
  if (names.length) await open(names.includes(last) ? last : names[0]);
  else openStart(created, {});
  document.body.dataset.ready = "yes";
}

begin();
