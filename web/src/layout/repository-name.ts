// Proposes a repository's name from where it comes. Pure.

/** The last part of a path or address as a valid name; empty if nothing of it can be used. */
export function repositoryNameOf(source: string): string {
  const last = source.trim().replace(/[/\\]+$/u, "").split(/[/\\:]/u).at(-1) ?? "";
  return last
    .toLowerCase()
    .replace(/\.git$/u, "")
    .replace(/[^a-z0-9._-]+/gu, "-")
    .replace(/^[^a-z0-9]+/u, "")
    .slice(0, 100);
}
