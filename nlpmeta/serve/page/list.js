// A list of any number of texts, of which only those in sight are in the document.

import { element } from "./dom.js";

const BEYOND = 6; // rows above and below those in sight

export class TextList {
  /** `draw(item)` gives the parts of a row; `onFocus(item)` is told which row is the current one. */
  constructor(box, { draw, onFocus }) {
    this.box = box;
    this.draw = draw;
    this.onFocus = onFocus;
    this.items = [];
    this.current = 0;
    this.inner = element("div", { class: "rows", role: "presentation" });
    box.append(this.inner);
    box.addEventListener("scroll", () => this.render(), { passive: true });
    box.addEventListener("keydown", (event) => this.key(event));
    new ResizeObserver(() => this.render()).observe(box);
  }

  get height() {
    return parseFloat(getComputedStyle(this.box).getPropertyValue("--row")) || 56;
  }

  /** Shows other items; the current one stays the current one if it is among them. */
  show(items, keep) {
    this.items = items;
    const place = items.indexOf(keep);
    this.current = place >= 0 ? place : Math.min(this.current, Math.max(0, items.length - 1));
    this.render();
  }

  /** The items whose rows are in sight. */
  inSight() {
    const first = Math.floor(this.box.scrollTop / this.height);
    return this.items.slice(first, first + Math.ceil(this.box.clientHeight / this.height) + 1);
  }

  render() {
    const { height, box } = this;
    this.inner.style.height = `${this.items.length * height}px`;
    const first = Math.max(0, Math.floor(box.scrollTop / height) - BEYOND);
    const last = Math.min(this.items.length, Math.ceil((box.scrollTop + box.clientHeight) / height) + BEYOND);
    const rows = [];
    for (let place = first; place < last; place += 1) rows.push(this.row(place, height));
    this.inner.replaceChildren(...rows);
    const active = this.items.length && this.current >= first && this.current < last;
    if (active) box.setAttribute("aria-activedescendant", `row-${this.current}`);
    else box.removeAttribute("aria-activedescendant");
  }

  row(place, height) {
    const selected = place === this.current;
    const row = element("div", {
      class: `row${selected ? " current" : ""}`, id: `row-${place}`, role: "option", "aria-selected": String(selected),
      "aria-setsize": this.items.length, "aria-posinset": place + 1, click: () => this.focus(place),
    }, ...this.draw(this.items[place]));
    row.style.transform = `translateY(${place * height}px)`;
    return row;
  }

  focus(place) {
    if (!this.items.length) return;
    this.current = Math.max(0, Math.min(place, this.items.length - 1));
    const top = this.current * this.height;
    const { scrollTop, clientHeight } = this.box;
    if (top < scrollTop) this.box.scrollTop = top;
    else if (top + this.height > scrollTop + clientHeight) this.box.scrollTop = top + this.height - clientHeight;
    this.render();
    this.onFocus(this.items[this.current]);
  }

  key(event) {
    const page = Math.max(1, Math.floor(this.box.clientHeight / this.height) - 1);
    const steps = { ArrowDown: 1, ArrowUp: -1, PageDown: page, PageUp: -page, Home: -Infinity, End: Infinity };
    if (!(event.key in steps)) return;
    event.preventDefault();
    this.focus(this.current + steps[event.key]);
  }
}
