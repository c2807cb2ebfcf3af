/** Announcements for screen readers: few, short, and never two at once. */

const REST_MS = 1200;

export class Announcer {
  #element;
  #waiting = [];
  #timer = null;

  constructor(element) {
    this.#element = element;
  }

  say(sentence) {
    this.#waiting.push(sentence);
    if (this.#timer === null) this.#next();
  }

  #next() {
    const sentence = this.#waiting.shift();
    if (sentence === undefined) {
      this.#timer = null;
      return;
    }
    // The same sentence twice in a row would not be a change, and not be read.
    const again = this.#element.textContent === sentence;
    this.#element.textContent = again ? `${sentence}\u00a0` : sentence;
    this.#timer = setTimeout(() => this.#next(), REST_MS);
  }
}
