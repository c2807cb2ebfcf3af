// Compiled from clients/typescript/src/network.ts: change that file, then run `make docs`.
// Digest of both and of the compiler: 24a8ffce3be85a2e7efeea75d21685ba2a7c0c3ec25161d1b3671a87f28a8408
/** What the network says beside the connection: whether there is one, and what HTTP says of a token. */
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
 * Whether the gateway refuses this token. A browser does not tell why a WebSocket could not be opened; the
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
