// Chooses the newest entries of a long transcript. Pure.
import type { TurnView } from "@greenroom/sdk";

/** The last turns that hold `limit` entries together, the first of them cut, and how many entries are left out. */
export function newestEntries(
  turns: readonly TurnView[],
  limit: number,
): { turns: readonly TurnView[]; hidden: number } {
  let left = limit;
  for (let index = turns.length - 1; index >= 0; index -= 1) {
    const turn = turns[index];
    if (turn === undefined) break;
    if (turn.entries.length >= left) {
      const isCut = turn.entries.length > left;
      const first = isCut ? { ...turn, entries: turn.entries.slice(-left) } : turn;
      const before = turns.slice(0, index).reduce((sum, other) => sum + other.entries.length, 0);
      return {
        turns: [first, ...turns.slice(index + 1)],
        hidden: before + turn.entries.length - first.entries.length,
      };
    }
    left -= turn.entries.length;
  }
  return { turns, hidden: 0 };
}
