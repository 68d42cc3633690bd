import { readdirSync, readFileSync } from "node:fs";
import { expect, test } from "vitest";
import { reduceEvent, reduceFrame } from "./reduce.ts";
import { EMPTY_SESSION_VIEW, queuedPrompts, roleOf, runningTurn, type EntryView, type SessionView } from "./view.ts";
import type { Event, Member, Role, SessionAccess, StreamFrame } from "./wire.ts";

const GOLDEN = new URL("../../../tests/golden/", import.meta.url);
const logs = readdirSync(GOLDEN)
  .filter((name) => name.endsWith(".jsonl") && !name.endsWith(".overviews.jsonl"))
  .map((name) => ({
    name,
    events: readFileSync(new URL(name, GOLDEN), "utf8")
      .trim()
      .split("\n")
      .map((line) => JSON.parse(line) as Event),
  }));

function replay(events: readonly Event[], from = EMPTY_SESSION_VIEW): SessionView {
  return events.reduce(reduceEvent, from);
}

function eventsOf(name: string): readonly Event[] {
  const log = logs.find((entry) => entry.name === `${name}.jsonl`);
  if (log === undefined) throw new Error(`no golden log ${name}`);
  return log.events;
}

/** What clients in every language must agree on; kept beside the log as NAME.outline.json. */
function outline(view: SessionView) {
  return {
    title: view.title,
    state: view.state,
    last_seq: view.lastSeq,
    prompts: view.prompts.map(({ prompt, state }) => ({ id: prompt.id, state })),
    turns: view.turns.map((turn) => ({
      id: turn.id,
      result: turn.outcome?.result ?? null,
      entries: turn.entries.map(outlineEntry),
    })),
    sandbox: view.sandbox?.state ?? null,
    services: view.services.map(({ name, state }) => ({ name, state })),
    pull_requests: view.pullRequests.map(({ number, state }) => ({ number, state })),
  };
}

function outlineEntry(entry: EntryView) {
  if (entry.entry === "egress") {
    return { event: entry.event.type, host: entry.event.host, count: entry.event.count };
  }
  if (entry.entry === "milestone") return { event: entry.event.type };
  if (entry.entry === "prompt") return { prompt: entry.prompt.id };
  return {
    item: entry.id,
    kind: entry.item.kind,
    progress: entry.progress,
    text: entry.text.text + entry.output.text,
  };
}

test("there are golden logs", () => {
  expect(logs.length).toBeGreaterThanOrEqual(3);
});

test.each(logs)("$name reduces to its outline", ({ name, events }) => {
  const wanted: unknown = JSON.parse(
    readFileSync(new URL(name.replace(/jsonl$/u, "outline.json"), GOLDEN), "utf8"),
  );
  expect(outline(replay(events))).toEqual(wanted);
});

test.each(logs)("$name twice is the same as once", ({ events }) => {
  const once = replay(events);
  expect(replay(events, once)).toBe(once);
});

test.each(logs)("$name is the same however a reconnect overlaps", ({ events }) => {
  const once = replay(events);
  for (let cut = 0; cut <= events.length; cut += 1) {
    const before = replay(events.slice(0, cut));
    expect(replay(events.slice(Math.max(0, cut - 5)), before)).toEqual(once);
  }
});

const started = eventsOf("fix-failing-test").slice(0, 4);
const turnId = runningTurn(replay(started))?.id ?? "";
const delta = (text: string, offset: number, channel = "message", item_id = "itm_x") =>
  ({ frame: "delta", item_id, channel, offset, text }) as StreamFrame;

function liveEntries(frames: readonly StreamFrame[]) {
  const view = frames.reduce(reduceFrame, replay(started));
  return (runningTurn(view)?.entries ?? []).map(outlineEntry);
}

function itemEvent(type: "item.started" | "item.completed", text: string, seq = 5): StreamFrame {
  return {
    frame: "event",
    event: {
      seq,
      at_ms: 0,
      type,
      turn_id: turnId,
      item: { id: "itm_x", kind: "message", text },
    },
  };
}

const shown = (progress: string, text: string, kind = "message") => [
  { item: "itm_x", kind, progress, text },
];

test.each([
  { name: "a delta before its event", frames: [delta("hel", 0), delta("lo", 3)], want: shown("provisional", "hello") },
  { name: "the event keeps what deltas brought", frames: [delta("hello", 0), itemEvent("item.started", "")], want: shown("running", "hello") },
  { name: "deltas after the event", frames: [itemEvent("item.started", ""), delta("hi", 0)], want: shown("running", "hi") },
  { name: "text so far after joining", frames: [itemEvent("item.started", ""), delta("hel", 0), delta("hello wor", 0), delta("ld", 9)], want: shown("running", "hello world") },
  { name: "the end is final", frames: [delta("hel", 0), itemEvent("item.completed", "hello"), delta("!!", 5)], want: shown("completed", "hello") },
  { name: "a new connection drops what has no event", frames: [delta("hel", 0), { frame: "hello", generation: 1, session_id: "s", last_seq: 4 } as const], want: [] },
  { name: "output of a call", frames: [delta("ok\n", 0, "output")], want: shown("provisional", "ok\n", "tool_call") },
  { name: "a channel of tomorrow", frames: [delta("?", 0, "smell")], want: [] },
  { name: "a frame of tomorrow", frames: [{ frame: "tomorrow" } as unknown as StreamFrame], want: [] },
])("$name", ({ frames, want }) => {
  expect(liveEntries(frames)).toEqual(want);
});

test("a gap changes nothing but its mark", () => {
  const view = replay(started);
  const after = reduceEvent(view, { seq: 99, at_ms: 0, type: "session.titled", title: "no" });
  expect(after).toEqual({ ...view, hasGap: true });
});

test("the queue holds what waits, in order", () => {
  const view = replay(eventsOf("queue-stop-retry-resume").slice(0, 8));
  expect(queuedPrompts(view).map(({ prompt }) => prompt.text)).toEqual([
    "Then update the docs",
    "Never mind this one",
  ]);
});

test("what waits can be rewritten and put in another order", () => {
  const view = replay(eventsOf("queue-stop-retry-resume").slice(0, 8));
  const waits = queuedPrompts(view).map(({ prompt }) => prompt.id);
  const facts = { at_ms: 0, by: "usr_x" };
  const moved = reduceEvent(view, {
    ...facts,
    seq: view.lastSeq + 1,
    type: "prompt.moved",
    prompt_id: waits[1] ?? "",
    position: 0,
  });
  const edited = reduceEvent(moved, {
    ...facts,
    seq: view.lastSeq + 2,
    type: "prompt.edited",
    prompt_id: waits[0] ?? "",
    text: "Then the guide",
  });
  expect(queuedPrompts(edited).map(({ prompt }) => prompt.text)).toEqual([
    "Never mind this one",
    "Then the guide",
  ]);
  // What runs or ran keeps its place, and one that does not wait is not moved.
  expect(edited.prompts[0]).toBe(view.prompts[0]);
  const running = { ...facts, seq: edited.lastSeq + 1, prompt_id: view.prompts[0]?.prompt.id ?? "" };
  const same = reduceEvent(edited, { ...running, type: "prompt.moved", position: 1 });
  expect(same.prompts).toEqual(edited.prompts);
});

test("what is told to a turn that runs waits first, stands in the turn, and ends with it", () => {
  const view = replay(eventsOf("queue-stop-retry-resume").slice(0, 8));
  const turn = runningTurn(view)?.id ?? "";
  const waits = queuedPrompts(view).map(({ prompt }) => prompt.id);
  const [first = "", second = ""] = waits;
  const next = (from: SessionView, event: object): SessionView =>
    reduceEvent(from, { seq: from.lastSeq + 1, at_ms: 0, by: "usr_x", ...event } as Event);
  const sent = next(view, {
    type: "prompt.queued",
    prompt: { ...view.prompts[0]?.prompt, id: "prm_new", delivery: "insert" },
  });
  expect(queuedPrompts(sent).map(({ prompt }) => prompt.id)).toEqual(["prm_new", first, second]);
  const changed = next(sent, {
    type: "prompt.delivery_changed",
    prompt_id: second,
    delivery: "insert",
  });
  expect(queuedPrompts(changed).map(({ prompt }) => prompt.id)).toEqual(["prm_new", second, first]);
  // One that is to wait after all does not come between those that are told.
  const back = next(changed, {
    type: "prompt.delivery_changed",
    prompt_id: "prm_new",
    delivery: "queue",
  });
  expect(queuedPrompts(back).map(({ prompt }) => prompt.id)).toEqual([second, "prm_new", first]);
  const paused = next(changed, { type: "session.queue_changed", is_paused: true });
  expect(paused.isQueuePaused).toBe(true);
  const told = ["prm_new", second].reduce(
    (from, id) => next(from, { type: "prompt.inserted", turn_id: turn, prompt_id: id }),
    paused,
  );
  expect(told.turns.at(-1)?.entries.slice(-2).map(outlineEntry)).toEqual([
    { prompt: "prm_new" },
    { prompt: second },
  ]);
  expect(told.prompts.find(({ prompt }) => prompt.id === second)?.state).toBe("running");
  const ended = next(told, {
    type: "turn.completed",
    turn_id: turn,
    prompt_id: view.prompts[0]?.prompt.id,
    outcome: { result: "completed" },
    usage: {},
  });
  for (const id of ["prm_new", second]) {
    expect(ended.prompts.find(({ prompt }) => prompt.id === id)?.state).toBe("completed");
  }
  // Nothing waits any more that could be paused.
  const empty = next(ended, { type: "prompt.cancelled", prompt_id: first });
  expect([ended.isQueuePaused, empty.isQueuePaused]).toEqual([true, false]);
});

test("a stale row does not undo newer events", () => {
  const view = replay(eventsOf("fix-failing-test"));
  const row = { title: "old", state: "running", pull_requests: [], last_seq: 3 };
  expect(reduceFrame(view, { frame: "session", session: row } as unknown as StreamFrame)).toBe(view);
});

test("five thousand items reduce to five thousand entries", () => {
  const events = Array.from(
    { length: 5_000 },
    (_, index): Event => ({
      seq: 5 + index,
      at_ms: 0,
      type: "item.completed",
      turn_id: turnId,
      item: { id: `itm_${String(index)}`, kind: "message", text: "x" },
    }),
  );
  expect(runningTurn(replay(events, replay(started)))?.entries).toHaveLength(5_000);
});

test("changes are kept once for each repository, the last push of each", () => {
  const push = (seq: number, commit: string, name?: string): Event => ({
    seq,
    at_ms: seq,
    type: "change.pushed",
    ...(name !== undefined && { repository: { name, base_branch: "main", path: name } }),
    branch: "greenroom/x",
    commit,
    additions: seq,
    deletions: 0,
    files: ["a"],
  });
  const view = replay([push(1, "own1"), push(2, "core1", "core"), push(3, "own2"), push(4, "core2", "core")]);
  expect(view.changes.map(({ repository, commit }) => [repository?.name ?? null, commit])).toEqual([
    [null, "own2"],
    ["core", "core2"],
  ]);
});

test("members come, change and go, and one owns the session", () => {
  const view = replay(eventsOf("fix-failing-test"));
  const person = (id: string) => ({ id, name: id, email: `${id}@example.com` });
  const after = (bodies: readonly object[]) =>
    bodies.reduce<SessionView>(
      (from, body) =>
        reduceEvent(from, { seq: from.lastSeq + 1, at_ms: 0, by: "usr_1", ...body } as unknown as Event),
      view,
    );
  const roles = (from: SessionView) =>
    from.members.map((member: Member) => [member.person.name, member.role]);
  const owner = view.createdBy?.name;
  expect(roles(view)).toEqual([[owner, "owner"]]);
  const grown = [
    { type: "session.member_changed", person: person("a"), role: "viewer" },
    { type: "session.member_changed", person: person("b"), role: "viewer" },
    { type: "session.member_changed", person: person("a"), role: "editor" },
  ];
  expect(roles(after(grown))).toEqual([[owner, "owner"], ["a", "editor"], ["b", "viewer"]]);
  const handed = after([...grown, { type: "session.handed_over", to: person("b") }]);
  expect(roles(handed)).toEqual([["b", "owner"], [owner, "editor"], ["a", "editor"]]);
  const left = after([...grown, { type: "session.member_changed", person: person("a") }]);
  expect(roles(left)).toEqual([[owner, "owner"], ["b", "viewer"]]);
  expect(after([{ type: "session.access_changed", access: "members" }]).access).toBe("members");
  // None of it is a line in the transcript.
  expect(handed.turns).toEqual(view.turns);
});

test.each<[Role | null, SessionAccess, boolean, Role | null]>([
  [null, "members", false, null],
  [null, "viewer", false, "viewer"],
  [null, "editor", false, "editor"],
  ["viewer", "members", false, "viewer"],
  ["viewer", "editor", false, "editor"],
  ["editor", "viewer", false, "editor"],
  ["owner", "members", false, "owner"],
  [null, "members", true, "owner"],
])("a member as %s, others as %s, owner of the server: %s, may what %s may", (own, access, isOwner, expected) => {
  const me = { id: "usr_me", name: "Me", email: "me@example.com" };
  const members: Member[] = own === null ? [] : [{ person: me, role: own }];
  expect(roleOf({ members, access }, { id: me.id, is_owner: isOwner })).toBe(expected);
});

test("who watches is as last told, and nobody is known to once the stream is closed", () => {
  const presence = { watching: [{ person: { id: "u", name: "Ada", email: "" }, is_away: false }], guests: 2 };
  const told = reduceFrame(EMPTY_SESSION_VIEW, { frame: "presence", presence });
  expect(told.presence).toEqual(presence);
  const problem = { code: "shutting_down", message: "", retryable: true };
  expect(reduceFrame(told, { frame: "closing", problem, last_seq: 0 }).presence.watching).toEqual([]);
});
