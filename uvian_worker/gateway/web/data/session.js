/** Who is signed in, in this tab. */

const KEY = "uvian.token";

/** Dispatches `change` when somebody signs in or out. */
export class Session extends EventTarget {
  #token = null;

  constructor() {
    super();
    this.#token = takeFromAddress() ?? stored();
    if (this.#token !== null && claims(this.#token) === null) this.#token = null;
    store(this.#token);
  }

  get token() {
    return this.#token;
  }

  /** The user's id, as the token has it; the gateway decides whether it is true. */
  get userId() {
    return this.#token === null ? null : claims(this.#token)?.sub ?? null;
  }

  get name() {
    const user = this.#token === null ? null : claims(this.#token);
    return user?.email || user?.sub?.slice(0, 8) || "";
  }

  /** Take a token; returns whether it has the form of one. */
  signIn(token) {
    const trimmed = token.trim();
    if (claims(trimmed) === null) return false;
    this.#set(trimmed);
    return true;
  }

  signOut() {
    this.#set(null);
  }

  #set(token) {
    this.#token = token;
    store(token);
    this.dispatchEvent(new Event("change"));
  }
}

/** `#access_token=…`, as Supabase Auth and `uvian dev` hand it over. It leaves the address at once. */
function takeFromAddress() {
  if (!location.hash.includes("access_token=")) return null;
  const token = new URLSearchParams(location.hash.slice(1)).get("access_token");
  history.replaceState(null, "", `${location.pathname}${location.search}#/create`);
  return token;
}

function stored() {
  try {
    return sessionStorage.getItem(KEY);
  } catch {
    return null;
  }
}

function store(token) {
  try {
    if (token === null) sessionStorage.removeItem(KEY);
    else sessionStorage.setItem(KEY, token);
  } catch {
    // Storage is blocked: signed in until the page is left.
  }
}

function claims(token) {
  try {
    const payload = token.split(".")[1].replaceAll("-", "+").replaceAll("_", "/");
    const bytes = Uint8Array.from(atob(payload), (letter) => letter.codePointAt(0));
    const user = JSON.parse(new TextDecoder().decode(bytes));
    return typeof user.sub === "string" ? user : null;
  } catch {
    return null;
  }
}
