import { Live, MessageAssembler } from "uvian-client";

export function watch(gateway: string, token: () => Promise<string>, conversationId: string) {
  const live = new Live({ url: `${gateway}/v1/live`, token });
  const messages = new MessageAssembler();

  const subscription = live.follow(`conversation:${conversationId}`, {
    onEvent(event) {
      const message = messages.apply(event);
      if (message !== null) console.log(message.state, message.text);
    },
    onState({ mode, state }) {
      if (mode !== "resume") messages.restart(state); // and read the rows, after `expired`
    },
    onEnd: (end) => console.log(end.reason),
  });
  return { subscription, stop: () => live.close() };
}
