/** For what cannot be undone. */

import { attribute, fill, h } from "../dom.js";
import { icon } from "../icons.js";

/** A button that has to be pressed twice. */
export function certain(label, question, act) {
  const button = h("button", { class: "quiet", type: "button", "aria-label": label, title: label }, icon("bin"));
  let sure = false;
  const calm = () => {
    sure = false;
    button.classList.remove("is-confirming");
    fill(button, icon("bin"));
    attribute(button, "aria-label", label);
  };
  button.addEventListener("click", () => {
    if (sure) {
      calm();
      act();
      return;
    }
    sure = true;
    button.classList.add("is-confirming");
    button.removeAttribute("aria-label");
    fill(button, question);
  });
  button.addEventListener("blur", calm);
  return button;
}
