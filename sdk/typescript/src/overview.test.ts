import { readdirSync, readFileSync } from "node:fs";
import { expect, test } from "vitest";
import { viewOfOverview, withHistory } from "./overview.ts";
import { reduceEvent, reduceFrame } from "./reduce.ts";
import { EMPTY_SESSION_VIEW, type SessionView } from "./view.ts";
import type { Event, Prompt, SessionOverview } from "./wire.ts";

const GOLDEN = new URL("../../../tests/golden/", import.meta.url);
const OVERVIEWS = ".overviews.jsonl";

function lines<T>(name: string): T[] {
  const text = readFileSync(new URL(name, GOLDEN), "utf8").trim();
  return text.split("\n").map((line) => JSON.parse(line) as T);
}

/** Each log with the server's overview after each of its events. */
const logs = readdirSync(GOLDEN)
  .filter((name) => name.endsWith(OVERVIEWS))
  .map((name) => ({
    name: name.slice(0, -OVERVIEWS.length),
    events: lines<Event>(name.replace(OVERVIEWS, ".jsonl")),
    overviews: lines<SessionOverview>(name),
  }));

function replay(events: readonly Event[], from: SessionView = EMPTY_SESSION_VIEW): SessionView {
  return events.reduce(reduceEvent, from);
}

function withoutEmpty({ images, ...prompt }: Prompt): Prompt {
  return images === undefined || images.length === 0 ? prompt : { ...prompt, images };
}

/** Whether an item is under way then: the server begins no part there. */
function isInsideItem(view: SessionView): boolean {
  return view.turns.some((turn) =>
    turn.entries.some((entry) => entry.entry === "item" && entry.progress === "running"),
  );
}

/** What a page shows, but for what only differs in how it was come by. */
function shown(view: SessionView) {
  return {
    ...view,
    firstSeq: 0,
    // Those that wait stand in their order, the others in any.
    prompts: view.prompts
      .map(({ prompt, state }) => ({ prompt: withoutEmpty(prompt), state }))
      .map((entry, at) => ({ entry, rank: entry.state === "queued" ? String(at).padStart(6, "0") : entry.prompt.id }))
      .sort((one, other) => one.rank.localeCompare(other.rank))
      .map(({ entry }) => entry),
  };
}

/** All of it but what stands before the overview. */
function head(view: SessionView) {
  const { prompts } = shown(view);
  const open = prompts.filter(({ state }) => state === "queued" || state === "running");
  return { ...shown(view), prompts: open, turns: [], preamble: [] };
}

test("there are logs", () => {
  expect(logs.length).toBeGreaterThanOrEqual(4);
});

test.each(logs)("$name: an overview and what follows is the session", ({ events, overviews }) => {
  const whole = replay(events);
  for (const [index, overview] of overviews.entries()) {
    expect(overview.seq).toBe(index + 1);
    expect(head(viewOfOverview(overview)), `at ${String(index + 1)}`).toEqual(
      head(replay(events.slice(0, index + 1))),
    );
    expect(head(replay(events.slice(index + 1), viewOfOverview(overview)))).toEqual(head(whole));
  }
});

test.each(logs)("$name: parts put together are the whole, wherever it is cut", ({ events, overviews }) => {
  const whole = shown(replay(events));
  const cuts = events.map((_, at) => at).filter((at) => !isInsideItem(replay(events.slice(0, at))));
  expect(cuts.length).toBeGreaterThan(5);
  for (const cut of cuts.slice(1)) {
    for (const earlier of cuts.filter((at) => at < cut)) {
      const recent = reduceFrame(EMPTY_SESSION_VIEW, {
        frame: "overview",
        overview: overviews[cut - 1] as SessionOverview,
      });
      const now = replay(events.slice(cut), recent);
      const middle = withHistory(now, {
        overview: overviews[earlier - 1] ?? null,
        events: events.slice(earlier, cut),
      });
      expect(middle.firstSeq).toBe(earlier);
      const all = withHistory(middle, { events: events.slice(0, earlier) });
      expect(shown(earlier === 0 ? middle : all), `${String(earlier)} to ${String(cut)}`).toEqual(whole);
    }
  }
});

test("a part that does not fit changes nothing", () => {
  const { events, overviews } = logs[0] as (typeof logs)[0];
  const view = replay(events.slice(5), viewOfOverview(overviews[4] as SessionOverview));
  expect(withHistory(view, { events: events.slice(0, 4) })).toBe(view);
  expect(withHistory(view, { events: [] })).toBe(view);
  const whole = replay(events);
  expect(withHistory(whole, { events })).toBe(whole);
});
