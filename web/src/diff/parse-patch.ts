// Reads one file's unified diff into rows. Pure and total: what it cannot read becomes a note.

export type DiffRow =
  | { readonly kind: "hunk"; readonly text: string }
  | { readonly kind: "context"; readonly oldLine: number; readonly newLine: number; readonly text: string }
  | { readonly kind: "added"; readonly newLine: number; readonly text: string }
  | { readonly kind: "removed"; readonly oldLine: number; readonly text: string }
  | { readonly kind: "note"; readonly text: string };

const HUNK = /^@@ -(\d+)(?:,\d+)? \+(\d+)(?:,\d+)? @@(.*)$/u;

/** Rows of a patch in order; the file header is left out. */
export function parsePatch(patch: string): DiffRow[] {
  const rows: DiffRow[] = [];
  let oldLine = 0;
  let newLine = 0;
  let isInHunk = false;
  const lines = patch.split("\n");
  if (lines.at(-1) === "") lines.pop();
  for (const line of lines) {
    const hunk = HUNK.exec(line);
    if (hunk !== null) {
      oldLine = Number(hunk[1]);
      newLine = Number(hunk[2]);
      isInHunk = true;
      rows.push({ kind: "hunk", text: line });
      continue;
    }
    if (!isInHunk) continue;
    const text = line.slice(1);
    switch (line[0]) {
      case "+":
        rows.push({ kind: "added", newLine, text });
        newLine += 1;
        break;
      case "-":
        rows.push({ kind: "removed", oldLine, text });
        oldLine += 1;
        break;
      case " ":
      case undefined:
        rows.push({ kind: "context", oldLine, newLine, text });
        oldLine += 1;
        newLine += 1;
        break;
      case "\\":
        rows.push({ kind: "note", text: "No newline at the end of the file" });
        break;
      default:
        // A cut patch ends in mid-line; the rest is no longer part of a hunk.
        rows.push({ kind: "note", text: line });
    }
  }
  return rows;
}
