/** The bar at the top: the open view, the state of the connection, the credits, light or dark. */

import { attribute, fill, h, text } from "./dom.js";
import { credits, creditsInWords, isNothing } from "./format.js";
import { icon } from "./icons.js";

export const TABS = [
  { name: "create", label: "Create" },
  { name: "chat", label: "Chat" },
  { name: "jobs", label: "Jobs" },
];

const CONNECTIONS = {
  live: ["Live", "Connected: everything here is up to date."],
  connecting: ["Connecting", "Connecting to the server."],
  waiting: ["Reconnecting", "The connection was lost. It comes back by itself, and nothing is missed."],
  offline: ["Offline", "Your device is offline. What happens meanwhile is loaded when you are back."],
  refused: ["Signed out", "Sign in to go on."],
  closed: ["Not connected", "Not connected to the server."],
};

const THEMES = ["auto", "light", "dark"];
const SETTLED_MS = 1500; // a shorter interruption is not shown

export class Header {
  #announcer;
  #tabs;
  #connection;
  #credits;
  #timer = null;
  #announced = "live";

  constructor({ announcer, feed, session, signOut, reconnect }) {
    this.#announcer = announcer;
    this.#tabs = fill(document.querySelector(".tabs"), ...TABS.map(tab));
    this.#connection = connection(reconnect);
    this.#credits = h("span", { class: "credits", hidden: true });
    fill(document.querySelector(".status"), this.#connection, this.#credits, themeButton(), leaveButton(session, signOut));
    feed.addEventListener("account", () => this.#spend(feed.account));
    session.addEventListener("change", () => this.#spend(null));
  }

  /** Mark the tab that is open. */
  show(name) {
    for (const link of this.#tabs.children) attribute(link, "aria-current", link.dataset.tab === name ? "page" : null);
  }

  /** Signed out there are no views to choose from. */
  enable(signedIn) {
    document.body.classList.toggle("signed-out", !signedIn);
  }

  /** Show the state of the connection, and announce it where it matters. */
  showConnection(state) {
    clearTimeout(this.#timer);
    const show = () => {
      const [word, sentence] = CONNECTIONS[state];
      this.#connection.dataset.state = state;
      this.#connection.title = sentence;
      text(this.#connection.querySelector(".connection-word"), word);
      this.#connection.disabled = state !== "waiting";
      if (["live", "waiting", "offline"].includes(state) && state !== this.#announced) {
        if (state !== "live" || this.#announced !== "connecting") this.#announcer.say(sentence);
        this.#announced = state;
      }
    };
    const interrupted = state === "waiting" || state === "connecting";
    if (interrupted && this.#announced === "live" && this.#connection.dataset.state === "live") this.#timer = setTimeout(show, SETTLED_MS);
    else show();
  }

  #spend(account) {
    // Where nothing was ever booked nothing has a price, and a 0 would only worry people.
    this.#credits.hidden = account === null || account.version === 0;
    if (account === null) return;
    const word = creditsInWords(account.balance).split(" ")[1];
    const held = isNothing(account.reserved) ? "" : `, ${credits(account.reserved)} held by open jobs`;
    this.#credits.title = `${creditsInWords(account.balance)} to spend${held}`;
    fill(this.#credits, h("b", {}, credits(account.balance)), h("span", { class: "credits-word" }, ` ${word}`));
  }
}

function tab({ name, label }) {
  return h("a", { href: `#/${name}`, data: { tab: name } }, icon(name), h("span", {}, label));
}

function connection(reconnect) {
  return h(
    "button",
    { class: "connection", type: "button", disabled: true, data: { state: "connecting" }, onclick: reconnect },
    h("span", { class: "connection-dot", "aria-hidden": "true" }),
    h("span", { class: "connection-word" }, "Connecting"),
  );
}

function leaveButton(session, signOut) {
  const button = h(
    "button",
    { class: "quiet leave", type: "button", "aria-label": "Sign out", onclick: signOut },
    icon("leave"),
  );
  const name = () => {
    button.title = `Sign out${session.name ? ` (${session.name})` : ""}`;
  };
  session.addEventListener("change", name);
  name();
  return button;
}

function themeButton() {
  const button = h("button", { class: "quiet", type: "button" });
  const show = (theme) => {
    fill(button, icon(theme));
    button.setAttribute("aria-label", `Colours: ${theme === "auto" ? "as the system" : theme}`);
    button.title = button.getAttribute("aria-label");
  };
  let theme = document.documentElement.dataset.theme ?? "auto";
  button.addEventListener("click", () => {
    theme = THEMES[(THEMES.indexOf(theme) + 1) % THEMES.length];
    if (theme === "auto") delete document.documentElement.dataset.theme;
    else document.documentElement.dataset.theme = theme;
    try {
      localStorage.setItem("uvian.theme", theme);
    } catch {
      // Storage is blocked: until the page is left.
    }
    show(theme);
  });
  show(theme);
  return button;
}
