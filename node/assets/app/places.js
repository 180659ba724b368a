// Where nodes are, as this browser must write it. Nodes tell each other's addresses as `host:port`, as an HTTP URL or as a
// WebSocket URL; the page works with origins.

const LOOPBACK = /^(127\.\d+\.\d+\.\d+|\[?::1\]?|localhost|0\.0\.0\.0|\[?::\]?)$/;

/** Returns the origin of a node's client listener, as reachable from here; the page's own origin when the address is unreadable. */
export function sameNode(address) {
  let url;
  try {
    const text = String(address ?? "");
    url = new URL(/^[a-z]+:\/\//.test(text) ? text.replace(/^ws/, "http") : `${location.protocol}//${text}`);
  } catch {
    return location.origin;
  }
  // A demo on another machine tells loopback addresses; from here they are on the host that served this page.
  if (LOOPBACK.test(url.hostname) && !LOOPBACK.test(location.hostname)) url.hostname = location.hostname;
  return url.origin;
}
