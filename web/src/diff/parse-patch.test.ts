import { expect, test } from "vitest";
import { parsePatch } from "./parse-patch.ts";

test("rows carry the line numbers of both versions", () => {
  const patch = "--- a/x\n+++ b/x\n@@ -3,3 +3,3 @@ fn\n keep\n-old\n+new\n last\n\\ No newline at end of file\n";
  expect(parsePatch(patch)).toEqual([
    { kind: "hunk", text: "@@ -3,3 +3,3 @@ fn" },
    { kind: "context", oldLine: 3, newLine: 3, text: "keep" },
    { kind: "removed", oldLine: 4, text: "old" },
    { kind: "added", newLine: 4, text: "new" },
    { kind: "context", oldLine: 5, newLine: 5, text: "last" },
    { kind: "note", text: "No newline at the end of the file" },
  ]);
});

test("removed lines that look like a header stay lines", () => {
  const rows = parsePatch("@@ -1 +1 @@\n--- a comment in SQL\n+++ counter\n");
  expect(rows.map((row) => row.kind)).toEqual(["hunk", "removed", "added"]);
});

test.each(["", "garbage", "Binary files differ\n"])("%j has no rows", (patch) => {
  expect(parsePatch(patch)).toEqual([]);
});
