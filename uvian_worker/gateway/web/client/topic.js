// Compiled from clients/typescript/src/topic.ts: change that file, then run `make docs`.
// Digest of both and of the compiler: 3d10f848dab02f0def077a664c031616965a24b98ab80ea0cfe80eab5b4ae03b
/** One topic of a live connection: who listens to it, and how far it was delivered. */
export class Topic {
    name;
    listener;
    stop;
    cursor;
    /** It was requested on this connection. */
    isOpen = false;
    /** Subscriptions that failed, one after the other. */
    tries = 0;
    timer;
    /** The gateway's answer on this connection; null until it is there. */
    #answer = null;
    /** Of a snapshot, until all of it is here. */
    #state = [];
    #delivered = null;
    constructor(name, listener, stop) {
        this.name = name;
        this.listener = listener;
        this.stop = stop;
        this.cursor = listener.cursor ?? null;
    }
    /** Whether the gateway has answered on this connection. */
    get isAnswered() {
        return this.#answer !== null;
    }
    /** The connection, or this subscription on it, is over. */
    reset() {
        clearTimeout(this.timer);
        this.isOpen = false;
        this.#answer = null;
    }
    /** The gateway has answered: the first page of what was missed, or of a snapshot. */
    subscribed(frame) {
        clearTimeout(this.timer); // the gateway has tried again by itself
        this.isOpen = true;
        this.tries = 0;
        this.#answer = frame;
        this.#state = [];
        this.page(frame);
    }
    /** A page of the answer, the first or a later one. */
    page({ events, more }) {
        for (const event of events) {
            if (this.#answer?.mode === "resume")
                this.event(event);
            else
                this.#state.push(event);
        }
        // Until all of a snapshot is here the old cursor stands: a snapshot is delivered whole, or not at all.
        if (more || this.#answer === null)
            return;
        const { mode, cursor, ended } = this.#answer;
        const state = this.#state;
        this.#state = [];
        this.cursor = cursor;
        this.#delivered = positionOf(cursor);
        this.listener.onState?.({ mode, state, ended, cursor });
    }
    /** The next event, unless it was delivered, or belongs to an earlier subscription. */
    event(event) {
        if (this.#answer === null)
            return;
        const { epoch, seq } = positionOf(event.id);
        if (this.#delivered !== null && epoch === this.#delivered.epoch && seq <= this.#delivered.seq)
            return;
        this.#delivered = { epoch, seq };
        this.cursor = event.id;
        this.listener.onEvent?.(event);
    }
}
/** A cursor is `<epoch>-<seq>-<check>`. */
function positionOf(cursor) {
    const [epoch = "", seq] = cursor.split("-");
    return { epoch, seq: Number(seq) };
}
