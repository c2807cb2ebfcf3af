// Compiled from clients/typescript/src/network.ts: change that file, then run `make docs`.
// Digest of both and of the compiler: 27ab3ab1f37bfd2b8bd64fa5713f88e493ad92d2887e37d11c9cebaa2acfbf10
/** Beside the connection: whether there is a network at all, and whether a token is accepted. */
/** Whether the browser says so. Node 21 has a navigator, which knows nothing of networks. */
export function isOffline() {
    return globalThis.navigator?.onLine === false;
}
/** Call `online` when a try may succeed again, and `offline` when it cannot; answers what ends that. */
export function watchNetwork(online, offline) {
    const page = globalThis.document;
    if (page === undefined)
        return () => { };
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
export async function isRefused(url, token, patienceMs) {
    try {
        const response = await fetch(url.replace(/^ws/, "http"), {
            headers: { Authorization: `Bearer ${token}` },
            signal: AbortSignal.timeout(patienceMs),
        });
        return response.status === 401;
    }
    catch {
        return false;
    }
}
