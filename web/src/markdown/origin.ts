// Tells addresses of this server from all others. Pure but for the page's own address.

/** Whether an address, absolute or relative, is one of this page's origin. */
export function isOwnOrigin(address: string): boolean {
  try {
    return new URL(address, window.location.href).origin === window.location.origin;
  } catch {
    return false;
  }
}
