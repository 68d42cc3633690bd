import type { TurnView } from "@greenroom/sdk";
import { expect, test } from "vitest";
import { newestEntries } from "./newest-entries.ts";

function turn(id: string, count: number): TurnView {
  return {
    id,
    entries: Array.from({ length: count }, (_, seq) => ({
      entry: "milestone",
      event: { seq, at_ms: 0, type: "session.titled", title: id },
    })),
  } as unknown as TurnView;
}

test.each([
  { counts: [2, 3], limit: 10, shown: [2, 3], hidden: 0 },
  { counts: [2, 3], limit: 5, shown: [2, 3], hidden: 0 },
  { counts: [2, 3], limit: 4, shown: [1, 3], hidden: 1 },
  { counts: [2, 3], limit: 3, shown: [3], hidden: 2 },
  { counts: [2, 3], limit: 1, shown: [1], hidden: 4 },
  { counts: [], limit: 5, shown: [], hidden: 0 },
])("$limit of $counts shows $shown", ({ counts, limit, shown, hidden }) => {
  const result = newestEntries(
    counts.map((count, index) => turn(String(index), count)),
    limit,
  );
  expect(result.turns.map((entry) => entry.entries.length)).toEqual(shown);
  expect(result.hidden).toBe(hidden);
});
