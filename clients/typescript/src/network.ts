/** Beside the connection: whether there is a network at all, and whether a token is accepted. */

/** Whether the browser says so. Node 21 has a navigator, which knows nothing of networks. */
export function isOffline(): boolean {
  return globalThis.navigator?.onLine === false;
}

/** Call `online` when a try may succeed again, and `offline` when it cannot; answers what ends that. */
export function watchNetwork(online: () => void, offline: () => void): () => void {
  const page = globalThis.document as Document | undefined;
  if (page === undefined) return () => {};
  const visible = () => page.visibilityState === "visible" && online();
  globalThis.addEventListener("online", online);
  globalThis.addEventListener("offline", offline);
  page.addEventListener("visibilitychange", visible);
  return () => {
    globalThis.removeEventListener("online", online);
    globalThis.removeEventListener("offline", offline);
    page.removeEventListener("visibilitychange", visible);
  };
}

/**
 * Whether the gateway refuses this token. A browser hides why a WebSocket could not be opened; the
 * same address over HTTP answers 401. Where nothing answers the token is not to blame.
 */
export async function isRefused(url: string, token: string, patienceMs: number): Promise<boolean> {
  try {
    const response = await fetch(url.replace(/^ws/, "http"), {
      headers: { Authorization: `Bearer ${token}` },
      signal: AbortSignal.timeout(patienceMs),
    });
    return response.status === 401;
  } catch {
    return false;
  }
}
