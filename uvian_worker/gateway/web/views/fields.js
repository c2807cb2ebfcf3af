/** Fields with their labels, and problems with their next steps. */

import { attribute, fill, h, text } from "../dom.js";
import { icon } from "../icons.js";
import { explained } from "../sentences.js";

/** A label, a field, what stands beside it, and room for what is wrong with it. */
export function field(label, input, aside = null, hint = null) {
  const error = h("p", { class: "field-error", id: `${input.id}-error` });
  const about = [hint && `${input.id}-hint`, error.id].filter(Boolean).join(" ");
  input.setAttribute("aria-describedby", about);
  return h(
    "div",
    { class: "field" },
    h("div", { class: "field-head" }, h("label", { for: input.id }, label), aside),
    input,
    hint && h("p", { class: "hint", id: `${input.id}-hint` }, hint),
    error,
  );
}

/** Show what is wrong with a field, or that nothing is. */
export function mark(input, sentence) {
  text(document.getElementById(`${input.id}-error`) ?? input.closest(".field").querySelector(".field-error"), sentence ?? "");
  attribute(input, "aria-invalid", sentence === null ? null : "true");
}

/** Show a problem of the gateway with its next step. */
export function showProblem(element, problem) {
  const [sentence, next] = explained(problem);
  fill(element, icon("alert"), h("p", {}, h("strong", {}, sentence), " ", next));
  element.hidden = false;
}

/** A text of some lines. */
export function area(id, placeholder, { rows }) {
  return h("textarea", { id, rows, placeholder, maxlength: 2000, required: true });
}

/** A slider and the number it stands at. */
export function range(id, { min, max, value, step = 1, show = String }) {
  const output = h("output", { for: id, class: "number" }, show(value));
  const slider = h("input", { id, type: "range", min, max, step, value });
  const update = () => {
    text(output, show(Number(slider.value)));
    slider.style.setProperty("--at", (slider.value - min) / (max - min));
  };
  slider.addEventListener("input", update);
  slider.value = value;
  update();
  return { element: slider, output, value: () => Number(slider.value) };
}

/** One of a few, side by side. */
export function choice(name, options, chosen) {
  const inputs = options.map(([value]) =>
    h("input", { type: "radio", name, id: `${name}-${value}`, value, checked: value === chosen }),
  );
  const labels = options.map(([value, label], at) => h("label", { for: `${name}-${value}` }, inputs[at], h("span", {}, label)));
  return {
    element: h("div", { class: "segments-row" }, labels),
    value: () => Number(inputs.find((input) => input.checked).value),
  };
}
