// The first form: name classes, describe them, give texts. What was typed is kept until the model is made.

import { announce, byId, element } from "./dom.js";
import { lines, textsOf } from "./csv.js";

const DRAFT = "nlpmeta-draft";

function draftRow({ label = "", description = "" } = {}) {
  const row = element("div", { class: "draft" },
    element("input", { class: "label", value: label, "aria-label": "Name of a class", placeholder: "refund", dir: "auto" }),
    element("input", { class: "said", value: description, "aria-label": "What belongs there", dir: "auto",
      placeholder: "the customer wants money back" }),
    element("button", { type: "button", class: "bare", "aria-label": "Remove this class", click: () => row.remove() }, "×"));
  return row;
}

function drafts() {
  return [...byId("drafts").children].map((row) => ({
    label: row.querySelector(".label").value.trim(), description: row.querySelector(".said").value.trim(),
  })).filter((each) => each.label);
}

function keep() {
  const draft = { name: byId("name").value, classes: drafts(), texts: byId("paste").value.slice(0, 500_000) };
  localStorage.setItem(DRAFT, JSON.stringify(draft));
}

/** Shows the form; `create(name, classes, texts)` makes the model and says whether that went well. */
export function openStart(create, { back }) {
  const form = byId("start");
  const draft = JSON.parse(localStorage.getItem(DRAFT) ?? "{}");
  for (const id of ["work", "side"]) byId(id).hidden = true;
  form.hidden = false;
  byId("back").hidden = !back;
  if (draft.name) byId("name").value = draft.name;
  byId("paste").value = draft.texts ?? "";
  const classes = draft.classes?.length ? draft.classes : [{}, {}];
  byId("drafts").replaceChildren(...classes.map(draftRow));
  byId("more").onclick = () => {
    byId("drafts").append(draftRow());
    byId("drafts").lastElementChild.querySelector("input").focus();
  };
  byId("back").onclick = () => back?.();
  byId("file").onchange = async (event) => {
    const [file] = event.target.files;
    if (file) byId("paste").value = textsOf(await file.text(), file.name).join("\n");
    keep();
  };
  form.oninput = keep;
  form.onsubmit = async (event) => {
    event.preventDefault();
    const named = drafts();
    if (named.length < 2) {
      announce("Name at least two classes.", { wrong: true });
      return;
    }
    byId("begin").disabled = true;
    const done = await create(byId("name").value.trim(), named, lines(byId("paste").value));
    byId("begin").disabled = false;
    if (done) localStorage.removeItem(DRAFT);
  };
  byId("drafts").querySelector("input").focus();
}
