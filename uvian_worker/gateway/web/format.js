/** Numbers and times as people read them. */

/** How long: 840 ms, 2.9 s, 1 min 04 s. */
export function duration(ms) {
  if (ms === null || ms === undefined || Number.isNaN(ms)) return "";
  if (ms < 1000) return `${Math.max(0, Math.round(ms))} ms`;
  if (ms < 59_950) return `${(ms / 1000).toFixed(1)} s`;
  const seconds = Math.round(ms / 1000);
  if (seconds < 3600) return `${Math.floor(seconds / 60)} min ${String(seconds % 60).padStart(2, "0")} s`;
  return `${Math.floor(seconds / 3600)} h ${String(Math.floor((seconds % 3600) / 60)).padStart(2, "0")} min`;
}

/** A decimal as it came, without the zeros that say nothing: credits are never rounded. */
export function credits(amount) {
  const plain = String(amount ?? "0");
  return plain.includes(".") ? plain.replace(/\.?0+$/, "") : plain;
}

/** The same in words: "1 credit", "2.5 credits". */
export function creditsInWords(amount) {
  const plain = credits(amount);
  return plain === "1" ? "1 credit" : `${plain} credits`;
}

/** Whether a decimal is 0. */
export function isNothing(amount) {
  return !/[1-9]/.test(String(amount ?? "0"));
}

/** When, seen from now. */
export function ago(at, now = Date.now()) {
  const then = new Date(at);
  const minutes = Math.floor((now - then.getTime()) / 60_000);
  if (minutes < 1) return "just now";
  if (minutes < 60) return `${minutes} min ago`;
  const today = new Date(now);
  const clock = then.toLocaleTimeString([], { hour: "2-digit", minute: "2-digit" });
  if (then.toDateString() === today.toDateString()) return clock;
  const day = { day: "numeric", month: "short", ...(then.getFullYear() === today.getFullYear() ? {} : { year: "numeric" }) };
  return `${then.toLocaleDateString([], day)}, ${clock}`;
}

/** When, to the second: for what is awaited. */
export function clock(at, now = Date.now()) {
  const then = new Date(at);
  const time = then.toLocaleTimeString([], { hour: "2-digit", minute: "2-digit", second: "2-digit" });
  if (then.toDateString() === new Date(now).toDateString()) return time;
  return `${then.toLocaleDateString([], { day: "numeric", month: "short" })}, ${time}`;
}

/** A beginning of a text that fits a title. */
export function shortened(words, length = 60) {
  const line = words.trim().replace(/\s+/g, " ");
  const letters = [...line];
  return letters.length <= length ? line : `${letters.slice(0, length - 1).join("").trimEnd()}…`;
}

/** 1 variation, 2 variations. */
export function number(count, noun) {
  return `${count} ${noun}${count === 1 ? "" : "s"}`;
}
