/** Addresses of stored pictures: signed by the gateway, many in one request, and remembered while they are valid. */

const MARGIN_MS = 60_000;
const MOST = 100; // paths in one request

export class Files {
  #api;
  #known = new Map(); // path → {url, until}
  #wanted = new Map(); // path → [resolve, …]
  #timer = null;

  constructor(api) {
    this.#api = api;
  }

  /** Remember an address that came with a row; those are valid for ten minutes. */
  remember(path, url) {
    if (url) this.#known.set(path, { url, until: Date.now() + 9 * 60_000 });
  }

  /** The address of a picture; null where there is none, undefined while the gateway is away. */
  url(path) {
    const known = this.#known.get(path);
    if (known !== undefined && known.until > Date.now()) return Promise.resolve(known.url);
    return new Promise((resolve) => {
      this.#wanted.set(path, [...(this.#wanted.get(path) ?? []), resolve]);
      this.#timer ??= setTimeout(() => this.#sign(), 15);
    });
  }

  /** Forget one that did not work. */
  drop(path) {
    this.#known.delete(path);
  }

  /** Forget everything: somebody else signs in. */
  clear() {
    this.#known.clear();
  }

  async #sign() {
    this.#timer = null;
    const wanted = [...this.#wanted].slice(0, MOST);
    for (const [path] of wanted) this.#wanted.delete(path);
    if (this.#wanted.size > 0) this.#timer = setTimeout(() => this.#sign(), 0);
    let urls = null;
    try {
      const answer = await this.#api.sign(wanted.map(([path]) => path));
      urls = answer.urls;
      for (const [path, url] of Object.entries(urls)) {
        this.#known.set(path, { url, until: Date.parse(answer.expires_at) - MARGIN_MS });
      }
    } catch {
      // The gateway is away: the pictures try again.
    }
    const answered = (path) => (urls === null ? undefined : (urls[path] ?? null));
    for (const [path, resolves] of wanted) for (const resolve of resolves) resolve(answered(path));
  }
}
