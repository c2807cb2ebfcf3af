/** The page: who is signed in, what is connected, which view is open. */

import { Announcer } from "./announcer.js";
import { Live } from "./client/live.js";
import { Api } from "./data/api.js";
import { Feed } from "./data/feed.js";
import { Files } from "./data/files.js";
import { Session } from "./data/session.js";
import { fill } from "./dom.js";
import { Header, TABS } from "./header.js";
import { ChatView } from "./views/chat.js";
import { CreateView } from "./views/create.js";
import { JobsView } from "./views/jobs.js";
import { SignInView } from "./views/signin.js";

const VIEWS = { create: CreateView, concepts: CreateView, chat: ChatView, jobs: JobsView };

const main = document.querySelector("#main");
const base = new URL(".", document.baseURI);
const session = new Session();
const announcer = new Announcer(document.querySelector("#announcer"));
const api = new Api({ base, token: () => session.token, onUnauthorized: () => expired() });
const live = new Live({
  url: new URL("v1/live", base).href.replace(/^http/, "ws"),
  token: async () => session.token,
  onConnection: connectionChanged,
});
const files = new Files(api);
const feed = new Feed(api);
const header = new Header({ announcer, feed, session, signOut, reconnect: () => live.reconnect() });
const begun = new Map(); // jobs that this page created: their inputs, until their rows are read
const parts = { api, live, files, feed, session, announcer, go, begun };

let view = null;
let opened = null; // the address of the view
let notice = null; // why one has to sign in

/** Open an address of this page. */
function go(address) {
  if (location.hash === address) show();
  else location.hash = address;
}

function show({ first = false } = {}) {
  if (session.token === null) return showSignIn();
  const [name = "", ...path] = location.hash.replace(/^#\/?/, "").split("/");
  if (VIEWS[name] === undefined) {
    if (location.hash !== "" && location.hash !== "#" && opened !== null) return undefined; // an anchor
    history.replaceState(null, "", "#/create");
    return show({ first });
  }
  const same = view instanceof VIEWS[name];
  opened = location.hash;
  if (!same) {
    view?.close();
    view = new VIEWS[name](parts);
    fill(main, view.element);
  }
  view.open({ section: name, id: path[0] ?? null });
  const label = TABS.find((tab) => tab.name === name)?.label ?? "Concept";
  document.title = `${label} · uvian`;
  header.show(name === "concepts" ? "create" : name);
  if (!same && !first) {
    window.scrollTo(0, 0);
    if (!main.contains(document.activeElement)) main.querySelector("h1")?.focus({ preventScroll: true });
  }
  return undefined;
}

function showSignIn() {
  if (!(view instanceof SignInView)) {
    view?.close();
    view = new SignInView({ session });
    fill(main, view.element);
  }
  view.show(notice);
  header.show(null);
  document.title = "Sign in · uvian";
}

/** The token is not accepted any more. */
function expired() {
  if (session.token === null) return;
  notice = "Your session has ended, or its token is not accepted here. Sign in again.";
  session.signOut();
}

function signOut() {
  notice = null;
  session.signOut();
}

function connectionChanged(state) {
  header.showConnection(state);
  if (state === "refused") expired();
}

function connect() {
  header.enable(session.token !== null);
  feed.close();
  files.clear();
  live.close();
  if (session.token === null) return;
  feed.open(live, session.userId);
}

session.addEventListener("change", () => {
  connect();
  view?.close();
  view = null;
  if (session.token !== null) notice = null;
  show();
});
window.addEventListener("hashchange", () => {
  if (location.hash.includes("access_token=")) location.reload(); // another session was opened here
  else show();
});
document.querySelector(".skip").addEventListener("click", (event) => {
  event.preventDefault();
  main.focus();
});

connect();
show({ first: true });
