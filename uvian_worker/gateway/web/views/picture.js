/** A picture: at once as a blur, then sharp; or a note that it could not be loaded. */

import { pauseBefore } from "../client/backoff.js";
import { attribute, fill, h } from "../dom.js";

const MOST_WAITS = 12; // about a minute for a gateway that is away

export class Picture {
  #files;
  #path = null;
  #preview = h("img", { class: "picture-preview", alt: "", hidden: true });
  #image = h("img", { class: "picture-image", decoding: "async" });
  #tries = 0;
  #waits = 0;

  constructor(files, alt) {
    this.#files = files;
    this.#image.alt = alt;
    this.#image.addEventListener("load", () => this.element.classList.add("is-sharp"));
    this.#image.addEventListener("error", () => this.#failed());
    this.element = h("span", { class: "picture" }, this.#preview, this.#image);
  }

  /** Show a stored picture; showing the same one again changes nothing. */
  show({ path, width, height, preview = null, url = null }) {
    if (preview !== null && this.#preview.hidden) {
      this.#preview.src = preview;
      this.#preview.hidden = false;
    }
    if (path === this.#path) return;
    this.#path = path;
    this.#tries = this.#waits = 0;
    this.element.classList.remove("is-sharp", "is-missing");
    this.element.style.setProperty("--ratio", `${width} / ${height}`);
    attribute(this.#image, "width", width);
    attribute(this.#image, "height", height);
    if (url !== null) this.#image.src = url;
    else this.#fetch();
  }

  describe(alt) {
    if (this.#image.alt !== alt) this.#image.alt = alt;
  }

  async #fetch() {
    const path = this.#path;
    const url = await this.#files.url(path);
    if (path !== this.#path) return;
    if (url === undefined && this.#waits < MOST_WAITS) {
      this.#waits += 1;
      setTimeout(() => path === this.#path && this.#fetch(), pauseBefore(this.#waits, 400, 8000));
    } else if (url) this.#image.src = url;
    else this.#failed();
  }

  #failed() {
    this.#files.drop(this.#path);
    this.#tries += 1;
    if (this.#tries <= 2) {
      setTimeout(() => this.#fetch(), 400 * this.#tries);
      return;
    }
    this.element.classList.add("is-missing");
    const again = h("button", { class: "secondary small", type: "button" }, "Load again");
    const note = h("span", { class: "picture-note" }, h("span", {}, "Not loaded"), again);
    again.addEventListener("click", (event) => {
      event.stopPropagation();
      event.preventDefault();
      note.remove();
      this.#tries = this.#waits = 0;
      this.element.classList.remove("is-missing");
      this.#fetch();
    });
    fill(this.element, this.#preview, this.#image, note);
  }
}
