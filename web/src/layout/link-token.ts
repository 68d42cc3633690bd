// Secrets of links, which stand behind the # so that no server sees them by accident. Kept for this tab, and out of the
// address, the history and screenshots.

const kept = new Map<string, string>();
const keyOf = (pathname: string) => `greenroom.link.${pathname}`;

/** What stands behind `#token=`; empty if nothing does. */
export function tokenOfAddress(hash: string): string {
  return new URLSearchParams(hash.replace(/^#/u, "")).get("token") ?? "";
}

/** Takes the secret of an invite or share link out of the address. Once, before anything else reads the address. */
export function takeLinkToken(): void {
  const { pathname, hash } = window.location;
  const token = tokenOfAddress(hash);
  if (token === "" || !/^\/(?:join|shared)\//u.test(pathname)) return;
  kept.set(pathname, token);
  try {
    window.sessionStorage.setItem(keyOf(pathname), token);
  } catch {
    // A browser that keeps nothing knows it until the page is loaded again.
  }
  window.history.replaceState(window.history.state, "", pathname);
}

/** The secret of the link that led to a path; empty if none did. */
export function linkToken(pathname: string): string {
  const known = kept.get(pathname);
  if (known !== undefined) return known;
  try {
    return window.sessionStorage.getItem(keyOf(pathname)) ?? "";
  } catch {
    return "";
  }
}
