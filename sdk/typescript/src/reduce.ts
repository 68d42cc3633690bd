// Turns stream frames into what a session page shows. Pure and total: every input yields a view, nothing throws,
// the same event twice counts once, unknown kinds are kept.
import { EMPTY_LIVE_TEXT, liveText, mergeDelta, type LiveText } from "./live-text.ts";
import { viewOfOverview } from "./overview.ts";
import {
  queuedPrompts,
  runningTurn,
  NOBODY,
  type ItemView,
  type MilestoneView,
  type EgressView,
  type EgressEvent,
  type EntryView,
  type ServiceView,
  type TurnView,
  type SessionView,
} from "./view.ts";
import type {
  DeltaChannel,
  Event,
  Item,
  Member,
  Person,
  PromptState,
  PullRequestLink,
  Role,
  SandboxState,
  Session,
  StreamFrame,
  TurnOutcome,
} from "./wire.ts";

/** Takes one frame in. */
export function reduceFrame(view: SessionView, frame: StreamFrame): SessionView {
  switch (frame.frame) {
    case "hello":
      // What was provisional belongs to the connection that is gone; the text so far comes again.
      return { ...dropProvisional(view), isCaughtUp: false, hasGap: false, closing: null };
    case "overview":
      return viewOfOverview(frame.overview);
    case "event":
      return reduceEvent(view, frame.event);
    case "caught_up":
      return { ...view, isCaughtUp: true };
    case "delta":
      return applyDelta(view, frame.item_id, frame.channel, frame.offset, frame.text);
    case "session":
      return applySession(view, frame.session);
    case "presence":
      return { ...view, presence: frame.presence };
    case "closing":
      return { ...view, closing: frame.problem, presence: NOBODY };
    default:
      return view;
  }
}

/** Takes one stored event in: events at or before `lastSeq` are ignored, one behind a gap sets `hasGap`. */
export function reduceEvent(view: SessionView, event: Event): SessionView {
  if (event.seq <= view.lastSeq) return view;
  if (event.seq !== view.lastSeq + 1) return { ...view, hasGap: true };
  const next = applyEvent(view, event);
  return {
    ...next,
    lastSeq: event.seq,
    isQueuePaused: next.isQueuePaused && queuedPrompts(next).length > 0,
  };
}

function applyEvent(view: SessionView, event: Event): SessionView {
  switch (event.type) {
    case "session.created":
      return {
        ...view,
        id: event.session_id,
        title: event.title,
        repository: event.repository,
        baseBranch: event.base_branch,
        branch: event.branch,
        model: event.model,
        isScripted: event.is_scripted,
        createdBy: event.created_by,
        members: [{ person: event.created_by, role: "owner" }],
        access: event.access ?? "viewer",
      };
    case "session.forked":
      return withMilestone({ ...view, forkedFrom: event.from }, event);
    case "session.titled":
      return { ...view, title: event.title };
    case "session.access_changed":
      return { ...view, access: event.access };
    case "session.member_changed":
      return { ...view, members: withMember(view.members, event.person, event.role ?? null) };
    case "session.handed_over":
      return {
        ...view,
        members: [
          { person: event.to, role: "owner" },
          ...view.members
            .filter((member) => member.person.id !== event.to.id)
            .map((member): Member => (member.role === "owner" ? { ...member, role: "editor" } : member)),
        ],
      };
    case "session.state_changed":
      return { ...view, state: event.state };
    case "session.archived":
      return { ...view, state: "archived" };
    case "session.unarchived":
      return { ...view, state: "idle" };
    case "session.delivery_changed":
      return { ...view, delivery: event.delivery };
    case "session.queue_changed":
      return { ...view, isQueuePaused: event.is_paused };
    case "prompt.queued":
      return event.prompt.delivery === "insert"
        ? withBehindInsertions(withQueued(view, event), event.prompt.id)
        : withQueued(view, event);
    case "prompt.delivery_changed":
      return withBehindInsertions(
        {
          ...view,
          prompts: view.prompts.map((entry) =>
            entry.prompt.id === event.prompt_id && entry.state === "queued"
              ? { ...entry, prompt: { ...entry.prompt, delivery: event.delivery } }
              : entry,
          ),
        },
        event.prompt_id,
      );
    case "prompt.inserted":
      return insertPrompt(view, event.turn_id, event.prompt_id);
    case "prompt.cancelled":
      return withPromptState(view, event.prompt_id, "cancelled");
    case "prompt.edited":
      return {
        ...view,
        prompts: view.prompts.map((entry) =>
          entry.prompt.id === event.prompt_id && entry.state === "queued"
            ? { ...entry, prompt: { ...entry.prompt, text: event.text } }
            : entry,
        ),
      };
    case "prompt.moved":
      return withPromptMoved(view, event.prompt_id, event.position);
    case "turn.started":
      return startTurn(view, event);
    case "item.started":
      return withItem(view, event.turn_id, event.item, "running", event.at_ms);
    case "item.completed":
      return withItem(view, event.turn_id, event.item, "completed", event.at_ms);
    case "turn.retrying":
      return withTurn(view, event.turn_id, (turn) => ({
        ...turn,
        entries: turn.entries.filter(isSettled),
        retry: {
          attempt: event.attempt,
          delayMs: event.delay_ms,
          atMs: event.at_ms,
          problem: event.problem,
        },
      }));
    case "turn.resumed":
      // Tool calls that ran when the server went away get their end as an event; half a message does not.
      return withTurn(view, event.turn_id, (turn) => ({
        ...turn,
        retry: null,
        entries: turn.entries.filter(
          (entry) =>
            isSettled(entry) ||
            (entry.entry === "item" &&
              entry.progress === "running" &&
              entry.item.kind === "tool_call"),
        ),
      }));
    case "turn.stopping":
      return withTurn(view, event.turn_id, (turn) => ({ ...turn, isStopping: true }));
    case "turn.completed":
      return endTurn(view, event);
    case "sandbox.state_changed":
      return {
        ...view,
        sandbox: { id: event.sandbox_id, state: event.state, problem: event.problem ?? null },
        services: IS_GONE.has(event.state) ? [] : view.services,
      };
    case "egress.decided":
      return withEgress(view, event);
    case "service.state_changed":
      return withService(view, event);
    case "workspace.changed":
      return { ...view, filesChangedSeq: event.seq };
    case "change.pushed":
      return withMilestone(
        {
          ...view,
          filesChangedSeq: 0,
          changes: [
            ...view.changes.filter((other) => other.repository?.name !== event.repository?.name),
            {
              repository: event.repository ?? null,
              branch: event.branch,
              commit: event.commit,
              additions: event.additions,
              deletions: event.deletions,
              files: event.files,
            },
          ],
        },
        event,
      );
    case "pull_request.opened":
      return withMilestone(
        {
          ...view,
          pullRequests: [
            ...view.pullRequests.filter((link) => !isSamePullRequest(link, event)),
            {
              repository: event.repository,
              number: event.number,
              title: event.title,
              path: event.path,
              state: "open",
            },
          ],
        },
        event,
      );
    case "pull_request.state_changed":
      return withMilestone(
        {
          ...view,
          pullRequests: view.pullRequests.map((link) =>
            isSamePullRequest(link, event) ? { ...link, state: event.state } : link,
          ),
        },
        event,
      );
    case "effect.failed":
      return withMilestone(
        {
          ...view,
          failedEffects:
            event.effect_key == null
              ? view.failedEffects
              : [
                  ...view.failedEffects,
                  { key: event.effect_key },
                ],
        },
        event,
      );
    case "effect.retried":
    case "effect.superseded":
      return {
        ...view,
        failedEffects: view.failedEffects.filter((failed) => failed.key !== event.effect_key),
      };
    default:
      return withMilestone(view, event);
  }
}

function withMember(
  members: readonly Member[],
  person: Person,
  role: Role | null,
): readonly Member[] {
  if (role === null) return members.filter((member) => member.person.id !== person.id);
  const index = members.findIndex((member) => member.person.id === person.id);
  return index === -1 ? [...members, { person, role }] : members.with(index, { person, role });
}

const IS_GONE: ReadonlySet<SandboxState> = new Set<SandboxState>(["starting", "stopped", "lost"]);

function withService(
  view: SessionView,
  event: Extract<Event, { type: "service.state_changed" }>,
): SessionView {
  const service: ServiceView = { name: event.name, state: event.state, reason: event.reason };
  const index = view.services.findIndex((known) => known.name === event.name);
  return {
    ...view,
    services: index === -1 ? [...view.services, service] : view.services.with(index, service),
  };
}

/** The count of a turn's end belongs to the entry that its first connection made. */
function withEgress(view: SessionView, event: EgressEvent): SessionView {
  const entry: EgressView = { entry: "egress", event };
  const turn = view.turns.at(-1);
  if (turn === undefined) return { ...view, preamble: counted(view.preamble, entry) };
  return withTurn(view, turn.id, (current) => ({
    ...current,
    entries: counted(current.entries, entry),
  }));
}

/** Entries with one more: a count above one replaces the entry of the first connection. */
export function counted<Entry extends EntryView>(
  entries: readonly Entry[],
  next: EgressView,
): readonly (Entry | EgressView)[] {
  const index = entries.findLastIndex(
    (entry) => entry.entry === "egress" && isSameEgress(entry.event, next.event),
  );
  if (index === -1 || next.event.count <= 1) return [...entries, next];
  return entries.map((entry, at) => (at === index ? next : entry));
}

function isSameEgress(one: EgressEvent, other: EgressEvent): boolean {
  return (
    one.host === other.host &&
    one.port === other.port &&
    one.protocol === other.protocol &&
    one.verdict === other.verdict &&
    (one.turn_id ?? null) === (other.turn_id ?? null)
  );
}

function isSamePullRequest(
  link: PullRequestLink,
  other: { repository: string; number: number },
): boolean {
  return link.repository === other.repository && link.number === other.number;
}

function isSettled(entry: EntryView): boolean {
  return (
    entry.entry !== "item" ||
    entry.progress === "completed" ||
    entry.progress === "interrupted"
  );
}

function startTurn(view: SessionView, event: Extract<Event, { type: "turn.started" }>): SessionView {
  const turn: TurnView = {
    id: event.turn_id,
    promptId: event.prompt_id,
    model: event.model,
    isScripted: event.is_scripted,
    startedAtMs: event.at_ms,
    endedAtMs: null,
    isStopping: false,
    retry: null,
    outcome: null,
    usage: null,
    sandboxUsage: null,
    told: [],
    entries: [],
  };
  return withPromptState({ ...view, turns: [...view.turns, turn] }, event.prompt_id, "running");
}

function endTurn(view: SessionView, event: Extract<Event, { type: "turn.completed" }>): SessionView {
  const ended = withTurn(view, event.turn_id, (turn) => ({
    ...turn,
    endedAtMs: event.at_ms,
    outcome: event.outcome,
    usage: event.usage,
    sandboxUsage: event.sandbox ?? null,
    retry: null,
    entries: turn.entries
      .filter((entry) => entry.entry !== "item" || entry.progress !== "provisional")
      .map((entry) =>
        entry.entry === "item" && entry.progress === "running"
          ? { ...entry, progress: "interrupted" as const }
          : entry,
      ),
  }));
  const state = promptStateOf(event.outcome);
  const told = ended.turns.find((turn) => turn.id === event.turn_id)?.told ?? [];
  return [event.prompt_id, ...told].reduce(
    (after, promptId) => withPromptState(after, promptId, state),
    ended,
  );
}

/** What is to be inserted waits before what waits for a turn of its own, and the newest of it last. */
function withBehindInsertions(view: SessionView, id: string): SessionView {
  const others = queuedPrompts(view).filter((entry) => entry.prompt.id !== id);
  const last = others.findLastIndex((entry) => entry.prompt.delivery === "insert");
  return withPromptMoved(view, id, last + 1);
}

function withQueued(view: SessionView, event: Extract<Event, { type: "prompt.queued" }>): SessionView {
  const { prompt, key } = event;
  return { ...view, prompts: [...view.prompts, { prompt, state: "queued", key: key ?? null }] };
}

function insertPrompt(view: SessionView, turnId: string, promptId: string): SessionView {
  const inserted = view.prompts.find((entry) => entry.prompt.id === promptId);
  if (inserted === undefined) return view;
  const told = withTurn(view, turnId, (turn) => ({
    ...turn,
    told: [...turn.told, promptId],
    entries: [...turn.entries, { entry: "prompt", prompt: inserted.prompt }],
  }));
  return withPromptState(told, promptId, "running");
}

/** Prompts that do not wait keep their places; those that do share the rest in their new order. */
function withPromptMoved(view: SessionView, id: string, position: number): SessionView {
  const moved = queuedPrompts(view).find((entry) => entry.prompt.id === id);
  if (moved === undefined) return view;
  const order = queuedPrompts(view).filter((entry) => entry !== moved);
  order.splice(position, 0, moved);
  const next = order.values();
  const prompts = view.prompts.map((entry) =>
    entry.state === "queued" ? (next.next().value ?? entry) : entry,
  );
  return { ...view, prompts };
}

function promptStateOf(outcome: TurnOutcome): PromptState {
  switch (outcome.result) {
    case "completed":
      return "completed";
    case "stopped":
      return "cancelled";
    default:
      return "failed";
  }
}

function withPromptState(view: SessionView, promptId: string, state: PromptState): SessionView {
  return {
    ...view,
    prompts: view.prompts.map((prompt) =>
      prompt.prompt.id === promptId ? { ...prompt, state } : prompt,
    ),
  };
}

function withTurn(
  view: SessionView,
  turnId: string,
  change: (turn: TurnView) => TurnView,
): SessionView {
  const index = view.turns.findLastIndex((turn) => turn.id === turnId);
  const turn = view.turns[index];
  if (turn === undefined) return view;
  return { ...view, turns: view.turns.with(index, change(turn)) };
}

function withMilestone(view: SessionView, event: Event): SessionView {
  const milestone: MilestoneView = { entry: "milestone", event };
  const last = view.turns.at(-1);
  if (last === undefined) return { ...view, preamble: [...view.preamble, milestone] };
  return withTurn(view, last.id, (turn) => ({ ...turn, entries: [...turn.entries, milestone] }));
}

function withItem(
  view: SessionView,
  turnId: string,
  item: Item,
  progress: "running" | "completed",
  atMs: number,
): SessionView {
  return withTurn(view, turnId, (turn) => {
    const index = indexOfItem(turn, item.id);
    const known = turn.entries[index];
    const before = known?.entry === "item" ? known : null;
    const next: ItemView = {
      entry: "item",
      id: item.id,
      progress,
      item,
      startedAtMs: before?.startedAtMs ?? atMs,
      ...textsOf(item, progress, before),
    };
    const entries = index === -1 ? [...turn.entries, next] : turn.entries.with(index, next);
    return { ...turn, entries, retry: null };
  });
}

/** An ended item's texts are final; of a running one, whichever is longer of the event's and the deltas'. */
function textsOf(
  item: Item,
  progress: "running" | "completed",
  before: ItemView | null,
): Pick<ItemView, "text" | "input" | "output"> {
  const text =
    item.kind === "message" || item.kind === "reasoning" ? liveText(item.text) : EMPTY_LIVE_TEXT;
  const output = item.kind === "tool_call" ? liveText(item.output) : EMPTY_LIVE_TEXT;
  if (progress === "completed" || before === null) return { text, input: EMPTY_LIVE_TEXT, output };
  return {
    text: longer(text, before.text),
    input: before.input,
    output: longer(output, before.output),
  };
}

function longer(first: LiveText, second: LiveText): LiveText {
  return second.bytes > first.bytes ? second : first;
}

function indexOfItem(turn: TurnView, itemId: string): number {
  return turn.entries.findLastIndex((entry) => entry.entry === "item" && entry.id === itemId);
}

function applyDelta(
  view: SessionView,
  itemId: string,
  channel: DeltaChannel,
  offset: number,
  text: string,
): SessionView {
  const turn = runningTurn(view);
  if (turn === null) return view;
  const index = indexOfItem(turn, itemId);
  const known = turn.entries[index];
  const before = known?.entry === "item" ? known : provisionalItem(itemId, channel);
  if (before === null || before.progress === "completed" || before.progress === "interrupted") {
    return view;
  }
  const after = withDelta(before, channel, offset, text);
  if (after === before) return view;
  return withTurn(view, turn.id, (current) => ({
    ...current,
    retry: null,
    entries: index === -1 ? [...current.entries, after] : current.entries.with(index, after),
  }));
}

function withDelta(item: ItemView, channel: DeltaChannel, offset: number, text: string): ItemView {
  const field = channel === "message" || channel === "reasoning" ? "text" : channel;
  const merged = mergeDelta(item[field], offset, text);
  return merged === item[field] ? item : { ...item, [field]: merged };
}

/** An item that has no event yet; null for channels this client does not know. */
function provisionalItem(id: string, channel: DeltaChannel): ItemView | null {
  const item = provisionalBody(id, channel);
  if (item === null) return null;
  return {
    entry: "item",
    id,
    progress: "provisional",
    item,
    text: EMPTY_LIVE_TEXT,
    input: EMPTY_LIVE_TEXT,
    output: EMPTY_LIVE_TEXT,
    startedAtMs: null,
  };
}

function provisionalBody(id: string, channel: DeltaChannel): Item | null {
  switch (channel) {
    case "message":
    case "reasoning":
      return { id, kind: channel, text: "" };
    case "input":
    case "output":
      return {
        id,
        kind: "tool_call",
        tool: "",
        summary: "",
        input: {},
        status: "running",
        output: "",
      };
    default:
      return null;
  }
}

function dropProvisional(view: SessionView): SessionView {
  const turn = runningTurn(view);
  if (turn === null) return view;
  return withTurn(view, turn.id, (current) => ({
    ...current,
    entries: current.entries.filter(
      (entry) => entry.entry !== "item" || entry.progress !== "provisional",
    ),
  }));
}

/** A row is a summary of the log up to its own number: one older than what was replayed is stale. */
function applySession(view: SessionView, session: Session): SessionView {
  if (session.last_seq < view.lastSeq) return view;
  return {
    ...view,
    title: session.title,
    state: session.state,
    pullRequests: session.pull_requests,
    members: session.members,
    access: session.access,
    delivery: session.delivery,
    isQueuePaused: session.is_queue_paused,
  };
}
