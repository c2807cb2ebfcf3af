/** What was made before; or, for who has made nothing yet, where one could begin. */

import { fill, h } from "../dom.js";
import { ago } from "../format.js";
import { explained } from "../sentences.js";
import { Picture } from "./picture.js";
import { swatches } from "./tile.js";

const EXAMPLES = [
  { logo: "A fox curled up asleep", theme: "Autumn woods at dusk", colours: ["#3d1f14", "#8c3b1b", "#d97a2b", "#f0c27a", "#f6ead7"] },
  { logo: "A lighthouse above the waves", theme: "Coral sunrise over deep teal water", colours: ["#0b3c49", "#13747d", "#fc7753", "#f9b5a1", "#f6f4ef"] },
  { logo: "A mountain with a river", theme: "Cold spring morning, moss and slate", colours: ["#22333b", "#5e7d6a", "#a3b899", "#d8e2dc", "#f7f9f7"] },
];

export class Gallery {
  #parts;
  #suggest;
  #closed = false;

  constructor(parts, suggest) {
    this.#parts = parts;
    this.#suggest = suggest;
    this.element = h("div", { class: "gallery" }, heading("Your concepts"), skeletons());
    this.#load();
  }

  close() {
    this.#closed = true;
  }

  async #load(cursor = null) {
    try {
      const page = await this.#parts.api.concepts({ cursor });
      if (this.#closed) return;
      if (cursor === null && page.items.length === 0) fill(this.element, ...this.#beginning());
      else if (cursor === null) fill(this.element, heading("Your concepts"), h("ul", { class: "concepts" }));
      this.#add(page);
    } catch (problem) {
      if (this.#closed) return;
      const [sentence, next] = explained(problem);
      const again = h("button", { class: "secondary", type: "button", onclick: () => this.#load(cursor) }, "Try again");
      fill(this.element, heading("Your concepts"), h("div", { class: "empty" }, h("p", {}, h("strong", {}, sentence), " ", next), again));
    }
  }

  #add({ items, next_cursor: cursor }) {
    this.element.querySelector(".concepts")?.append(...items.map((concept) => this.#card(concept)));
    this.element.querySelector(".load-more")?.remove();
    if (cursor) {
      this.element.append(
        h("button", { class: "secondary load-more", type: "button", onclick: () => this.#load(cursor) }, "Show more"),
      );
    }
  }

  #card(concept) {
    this.#parts.files.remember(concept.image_path, concept.image_url);
    const picture = new Picture(this.#parts.files, "");
    picture.show({ path: concept.image_path, width: concept.width, height: concept.height, url: concept.image_url });
    return h(
      "li",
      {},
      h(
        "a",
        { class: "concept", href: `#/concepts/${concept.id}` },
        picture.element,
        h("span", { class: "concept-name" }, concept.logo_description),
        h("span", { class: "concept-when" }, concept.parent_id ? "Refined, " : "", ago(concept.created_at)),
      ),
    );
  }

  #beginning() {
    return [
      heading("Describe it, and watch it appear"),
      h("p", { class: "lead" }, "Describe a mark and its mood. One picture is drawn, then repeated in as many palettes as you like, each shown the moment it is ready."),
      h("h3", { class: "overline" }, "Begin with one of these"),
      h("ul", { class: "examples" }, EXAMPLES.map((example) => h("li", {}, this.#example(example)))),
    ];
  }

  #example(example) {
    return h(
      "button",
      { class: "example", type: "button", onclick: () => this.#suggest(example) },
      swatches(example.colours),
      h("span", { class: "example-logo" }, example.logo),
      h("span", { class: "example-theme" }, example.theme),
    );
  }
}

function heading(words) {
  return h("h2", { tabindex: "-1" }, words);
}

function skeletons() {
  return h("div", { class: "concepts", "aria-hidden": "true" }, Array.from({ length: 6 }, () => h("div", { class: "concept skeleton" })));
}
