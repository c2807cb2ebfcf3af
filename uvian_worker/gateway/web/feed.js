/** What happens to a user: their jobs and their credits, for whatever part of the page is interested. */

/**
 * Dispatches `job` (detail: the envelope), `account` and `stale` (something was missed: read rows again).
 */
export class Feed extends EventTarget {
  #api;
  #leave = () => {};

  constructor(api) {
    super();
    this.#api = api;
    this.account = null; // {balance, reserved, version}
  }

  /** Listen to this user's topic. */
  open(live, userId) {
    this.close();
    this.#leave = live.subscribe(`user:${userId}`, {
      event: (event) => this.#happened(event),
      // A newcomer is always told `expired`: rows have the past, and are read after this answer.
      placed: ({ mode }) => mode !== "resume" && this.#readAgain(),
    });
  }

  close() {
    this.#leave();
    this.#leave = () => {};
    this.account = null;
  }

  #happened(event) {
    if (event.type === "credits.changed") this.#credit(event.data);
    else this.dispatchEvent(new CustomEvent("job", { detail: event }));
  }

  async #readAgain() {
    this.dispatchEvent(new Event("stale"));
    try {
      this.#credit(await this.#api.credits());
    } catch {
      // The header goes on without them.
    }
  }

  #credit(account) {
    if (this.account !== null && account.version < this.account.version) return;
    this.account = { balance: account.balance, reserved: account.reserved, version: account.version };
    this.dispatchEvent(new Event("account"));
  }
}
