/** A picture's slot in a grid: awaited, or there with its palette. */

import { attribute, fill, h } from "../dom.js";
import { Picture } from "./picture.js";

/** Colours side by side; their codes stand as text elsewhere. */
export function swatches(colours) {
  return h(
    "span",
    { class: "swatches", "aria-hidden": "true" },
    colours.map((colour) => h("span", { style: { "--colour": colour } })),
  );
}

export class Tile {
  #picture;
  #button;
  #caption;
  #shown = null;

  constructor(files, key, open) {
    this.#picture = new Picture(files, "");
    this.#button = h("button", { class: "tile-open", type: "button", disabled: true, onclick: open }, this.#picture.element);
    this.#caption = key === "base" ? null : h("div", { class: "tile-caption" });
    this.element = h("li", { class: `tile ${key === "base" ? "is-base" : ""}`, data: { picture: key } }, this.#button, this.#caption);
  }

  show(picture, { alt, awaited }) {
    attribute(this.element, "data-state", picture ? "ready" : awaited ? "awaited" : "absent");
    this.#button.disabled = picture === undefined;
    this.#button.hidden = picture === undefined && !awaited;
    attribute(this.#button, "aria-label", `${alt}. ${picture ? "Open" : "Not ready yet"}`);
    if (picture === undefined) return;
    this.#picture.show(picture);
    if (this.#caption === null) return;
    const wanted = JSON.stringify([picture.name, picture.palette]);
    if (wanted === this.#shown) return;
    this.#shown = wanted;
    fill(
      this.#caption,
      picture.palette && swatches(picture.palette),
      picture.name && h("span", { class: "tile-name" }, picture.name),
      picture.palette && h("span", { class: "unseen" }, `Colours: ${picture.palette.join(", ")}`),
    );
  }
}
