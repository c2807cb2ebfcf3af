/** Make a concept: the form on one side, the result on the other. */

import { newKey } from "../data/api.js";
import { fill, h, text } from "../dom.js";
import { creditsInWords, isNothing, shortened } from "../format.js";
import { Canvas } from "./canvas.js";
import { area, choice, field, mark, range, showProblem } from "./fields.js";
import { Gallery } from "./gallery.js";

const COST_AFTER_MS = 300;

export class CreateView {
  #parts;
  #form;
  #stage = h("section", { class: "stage", "aria-label": "Result" });
  #shown = null; // Canvas or Gallery

  constructor(parts) {
    this.#parts = parts;
    this.#form = new GenerationForm(parts);
    this.element = h("div", { class: "create" }, this.#form.element, this.#stage);
  }

  /** `#/create` is the gallery, `#/create/<job>` a job, `#/concepts/<id>` what one made. */
  open({ section, id }) {
    this.#shown?.close();
    this.element.classList.toggle("has-result", id !== null);
    if (id === null) this.#shown = new Gallery(this.#parts, (example) => this.#form.suggest(example));
    else this.#shown = new Canvas(this.#parts, section === "concepts" ? { concept: id } : { job: id });
    fill(this.#stage, this.#shown.element);
    if (id !== null) window.scrollTo({ top: 0 });
  }

  close() {
    this.#shown?.close();
    this.#form.close();
  }
}

class GenerationForm {
  #parts;
  #key = newKey();
  #timer = null;

  constructor(parts) {
    this.#parts = parts;
    this.logo = area("logo", "A fox curled up asleep", { rows: 3 });
    this.theme = area("theme", "Autumn woods at dusk, warm and quiet", { rows: 2 });
    this.palettes = range("palettes", { min: 1, max: 12, value: 7 });
    this.size = choice("size", [[512, "512"], [1024, "1024"], [2048, "2048"]], 1024);
    this.style = h("input", { id: "style", type: "text", maxlength: 200, placeholder: "flat, geometric", autocomplete: "off" });
    this.seed = h("input", { id: "seed", type: "number", min: 0, max: 2 ** 31 - 1, step: 1, placeholder: "any", inputmode: "numeric" });
    this.problem = h("div", { class: "problem", role: "alert", hidden: true });
    this.cost = h("span", { class: "cost", "aria-live": "off" });
    this.button = h("button", { class: "primary wide", type: "submit" }, h("span", {}, "Create concept"), this.cost);
    const form = h(
      "form",
      { class: "form", novalidate: true, onsubmit: (event) => this.#submit(event) },
      field("What should it show?", this.logo),
      field("Colours and mood", this.theme),
      field("Palettes", this.palettes.element, this.palettes.output),
      h(
        "details",
        { class: "more" },
        h("summary", {}, "More options"),
        h("fieldset", { class: "segments" }, h("legend", {}, "Size in pixels"), this.size.element),
        field("Style", this.style),
        field("Seed", this.seed, null, "The same seed draws the same picture again."),
      ),
      this.problem,
      this.button,
    );
    form.addEventListener("input", () => this.#changed());
    form.addEventListener("keydown", (event) => {
      if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) form.requestSubmit();
    });
    this.element = h(
      "aside",
      { class: "brief", "aria-label": "New concept" },
      h("h1", { tabindex: "-1" }, "New concept"),
      form,
    );
    this.#showCost();
  }

  /** Fill in an example, for the user to change or send. */
  suggest({ logo, theme }) {
    this.logo.value = logo;
    this.theme.value = theme;
    this.#changed();
    this.button.focus();
  }

  close() {
    clearTimeout(this.#timer);
  }

  #input() {
    const input = {
      logo_description: this.logo.value.trim(),
      theme_description: this.theme.value.trim(),
      num_palettes: this.palettes.value(),
      size: this.size.value(),
    };
    if (this.style.value.trim()) input.style = this.style.value.trim();
    if (this.seed.value !== "") input.seed = Number(this.seed.value);
    return input;
  }

  #changed() {
    this.#key = newKey(); // another input is another request
    this.problem.hidden = true;
    for (const each of [this.logo, this.theme, this.seed]) mark(each, null);
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => this.#showCost(), COST_AFTER_MS);
  }

  async #showCost() {
    const input = this.#input();
    try {
      const { cost } = await this.#parts.api.cost("generation", {
        ...input,
        logo_description: input.logo_description || "…",
        theme_description: input.theme_description || "…",
      });
      text(this.cost, isNothing(cost) ? "" : creditsInWords(cost));
    } catch {
      text(this.cost, ""); // the request itself will show what is wrong
    }
  }

  async #submit(event) {
    event.preventDefault();
    if (!this.#complete()) return;
    this.button.disabled = true;
    try {
      const input = this.#input();
      const made = await this.#parts.api.createJob("generation", input, this.#key);
      this.#key = newKey();
      this.#parts.begun.set(made.id, { type: "generation", input });
      this.#parts.announcer.say(`Making a concept: ${shortened(input.logo_description)}.`);
      this.#parts.go(`#/create/${made.id}`);
    } catch (problem) {
      showProblem(this.problem, problem);
    } finally {
      this.button.disabled = false;
    }
  }

  #complete() {
    mark(this.logo, this.logo.value.trim() ? null : "Describe what it should show.");
    mark(this.theme, this.theme.value.trim() ? null : "Describe its colours or its mood.");
    const seed = this.seed.value;
    const fits = seed === "" ? !this.seed.validity.badInput : /^\d+$/.test(seed) && Number(seed) < 2 ** 31;
    mark(this.seed, fits ? null : "A whole number from 0 to 2147483647, or nothing.");
    if (!fits) this.seed.closest("details").open = true;
    const first = [this.logo, this.theme, this.seed].find((each) => each.getAttribute("aria-invalid"));
    first?.focus();
    return first === undefined;
  }
}
