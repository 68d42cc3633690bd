// Long sessions are opened at an overview near their end, and read backwards from there part by part. Pure, as the reducer is.
import { counted, reduceEvent } from "./reduce.ts";
import {
  EMPTY_SESSION_VIEW,
  type EntryView,
  type PromptView,
  type SessionView,
  type TurnView,
} from "./view.ts";
import type { History, SessionOverview } from "./wire.ts";

/** The view that events behind an overview are taken into. */
export function viewOfOverview(overview: SessionOverview): SessionView {
  const { seq, session, queued, turn, sandbox, services, changes } = overview;
  const told = turn?.inserted ?? [];
  const openTurn: TurnView | null =
    turn == null
      ? null
      : {
          id: turn.turn_id,
          promptId: turn.prompt.id,
          model: turn.model,
          isScripted: turn.is_scripted,
          startedAtMs: turn.started_at_ms,
          endedAtMs: null,
          isStopping: turn.stopped_by != null,
          retry: null,
          outcome: null,
          usage: null,
          sandboxUsage: null,
          told: told.map(({ id }) => id),
          // When they were told stands in the part before, where their entries are.
          entries: [],
        };
  return {
    ...EMPTY_SESSION_VIEW,
    lastSeq: seq,
    firstSeq: seq,
    id: session.id,
    title: session.title,
    state: session.state,
    repository: session.repository,
    baseBranch: session.base_branch,
    branch: session.branch,
    model: session.model,
    isScripted: session.is_scripted,
    createdBy: session.created_by,
    members: session.members,
    access: session.access,
    delivery: session.delivery,
    isQueuePaused: session.is_queue_paused,
    failedEffects: (session.failed_effects ?? []).map(({ key }) => ({ key })),
    forkedFrom: session.forked_from ?? null,
    pullRequests: session.pull_requests,
    prompts: [
      ...(turn == null ? [] : [turn.prompt, ...told]).map(
        (prompt): PromptView => ({ prompt, state: "running", key: null }),
      ),
      ...queued.map((prompt): PromptView => ({ prompt, state: "queued", key: null })),
    ],
    turns: openTurn === null ? [] : [openTurn],
    sandbox:
      sandbox == null
        ? null
        : { id: sandbox.sandbox_id, state: sandbox.state, problem: sandbox.problem ?? null },
    services: services.map(({ name, state, reason }) => ({ name, state, reason })),
    changes: changes.map((change) => ({ ...change, repository: change.repository ?? null })),
    filesChangedSeq: overview.files_changed_seq ?? 0,
  };
}

/** Puts the part before it in front of a view; parts that do not end where it begins are left out. */
export function withHistory(view: SessionView, history: History): SessionView {
  const { overview, events } = history;
  const last = events.at(-1)?.seq ?? 0;
  if (view.firstSeq === 0 || last !== view.firstSeq) return view;
  const start = overview == null ? EMPTY_SESSION_VIEW : viewOfOverview(overview);
  const before = events.reduce(reduceEvent, start);
  // A prompt that both know stands where it stood first, as it stands now.
  const now = new Map(view.prompts.map((entry) => [entry.prompt.id, entry]));
  const earlier = before.prompts
    .filter((entry) => entry.state !== "queued")
    .map((entry) => ({ ...entry, state: now.get(entry.prompt.id)?.state ?? entry.state }));
  const isEarlier = new Set(earlier.map(({ prompt }) => prompt.id));
  return {
    ...view,
    firstSeq: start.firstSeq,
    prompts: [...earlier, ...view.prompts.filter(({ prompt }) => !isEarlier.has(prompt.id))],
    preamble: before.turns.length === 0 ? [...before.preamble, ...view.preamble] : before.preamble,
    turns: joined(before.turns, view.preamble, view.turns),
  };
}

/** The turns of two parts: one that was cut is one again, and what came between turns stands behind the first. */
function joined(
  before: readonly TurnView[],
  between: SessionView["preamble"],
  after: readonly TurnView[],
): readonly TurnView[] {
  const last = before.at(-1);
  if (last === undefined) return after;
  const first = after[0];
  if (first?.id !== last.id) {
    return [...before.with(-1, { ...last, entries: continued(last.entries, between) }), ...after];
  }
  // No item is cut: parts end where none is under way.
  const whole = {
    ...first,
    startedAtMs: last.startedAtMs,
    told: [...new Set([...last.told, ...first.told])],
    entries: continued(last.entries, [...between, ...first.entries]),
  };
  return [...before.slice(0, -1), whole, ...after.slice(1)];
}

/** Entries with what came after them: the count of a turn's end belongs to the entry of the first connection. */
function continued(
  entries: readonly EntryView[],
  later: readonly EntryView[],
): readonly EntryView[] {
  let whole: EntryView[] = [...entries];
  for (const entry of later) {
    if (entry.entry === "egress" && entry.event.count > 1) whole = [...counted(whole, entry)];
    else whole.push(entry);
  }
  return whole;
}
