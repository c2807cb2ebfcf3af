/** For who has no token yet. */

import { fill, h, text } from "../dom.js";

export class SignInView {
  constructor({ session }) {
    this.error = h("p", { class: "field-error", id: "token-error", role: "alert" });
    this.notice = h("p", { class: "note", hidden: true });
    this.field = h("textarea", {
      id: "token",
      rows: 4,
      required: true,
      autocomplete: "off",
      spellcheck: "false",
      autocapitalize: "off",
      "aria-describedby": "token-hint token-error",
      placeholder: "eyJ…",
    });
    const enter = (event) => {
      event?.preventDefault();
      if (!session.signIn(this.field.value)) {
        text(this.error, "This is no access token: it has three parts with dots between them.");
        this.field.setAttribute("aria-invalid", "true");
        this.field.focus();
      }
    };
    this.field.addEventListener("keydown", (event) => event.key === "Enter" && enter(event));
    this.element = fill(
      h("div", { class: "sign-in" }),
      h("h1", { tabindex: "-1" }, "Sign in"),
      h("p", { class: "lead" }, "Make logo concepts, refine them, and talk about them, live."),
      this.notice,
      h(
        "form",
        { class: "card form", onsubmit: enter },
        h("label", { for: "token" }, "Access token"),
        this.field,
        h("p", { class: "hint", id: "token-hint" }, "Of a signed-in user. It stays in this tab, and is forgotten when the tab closes."),
        this.error,
        h("button", { class: "primary", type: "submit" }, "Sign in"),
      ),
      h(
        "div",
        { class: "ways" },
        h("section", {}, h("h2", {}, "On your machine"), h("p", {}, h("code", {}, "uvian dev"), " prints an address that signs you in.")),
        h(
          "section",
          {},
          h("h2", {}, "In production"),
          h("p", {}, "Your front end signs people in with Supabase Auth, and opens this page at ", h("code", {}, "/#access_token=…"), " with the session’s ", h("code", {}, "access_token"), "."),
        ),
      ),
    );
  }

  /** Show why one has to sign in. */
  show(notice) {
    text(this.notice, notice ?? "");
    this.notice.hidden = notice === null;
  }

  close() {}
}
