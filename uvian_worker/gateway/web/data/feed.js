/** The events of a user: their jobs and their credits, for every part of the page. */

/**
 * Dispatches `job` (detail: the envelope), `account` and `stale` (something was missed: read rows again).
 */
export class Feed extends EventTarget {
  #api;
  #subscription = null;

  constructor(api) {
    super();
    this.#api = api;
    this.account = null; // {balance, reserved, version}
  }

  /** Receive this user's topic. */
  open(live, userId) {
    this.close();
    this.#subscription = live.follow(`user:${userId}`, {
      onEvent: (event) => this.#receive(event),
      onState: ({ mode, state }) => {
        for (const event of state) this.#receive(event);
        // Without a cursor the answer is always `expired`: rows have the past, and are read after it.
        if (mode !== "resume") this.#readAgain();
      },
    });
  }

  close() {
    this.#subscription?.stop();
    this.#subscription = null;
    this.account = null;
  }

  #receive(event) {
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
