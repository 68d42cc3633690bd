// What a session page shows: the shapes that stream frames are turned into, and what is asked of them. Must not know how they come.
import type { LiveText } from "./live-text.ts";
import type {
  Delivery,
  Event,
  Item,
  Member,
  Person,
  Presence,
  Problem,
  Prompt,
  PromptState,
  PullRequestLink,
  Role,
  SandboxState,
  SandboxUsage,
  ServiceState,
  SessionAccess,
  SessionState,
  TurnOutcome,
  Usage,
  WorkspaceRepository,
} from "./wire.ts";

/** A prompt and where it stands. */
export interface PromptView {
  readonly prompt: Prompt;
  readonly state: PromptState;
  /** Idempotency key of the command that sent it, by which its sender knows it again. */
  readonly key: string | null;
}

/** Whether an item is known only from deltas, has begun, has ended, or never will. */
export type ItemProgress = "provisional" | "running" | "completed" | "interrupted";

/** An item with the text that is known of it. */
export interface ItemView {
  readonly entry: "item";
  readonly id: string;
  readonly progress: ItemProgress;
  /** As the last event gave it; of provisional ones, made up from the deltas' channel. */
  readonly item: Item;
  /** Text of a message or reasoning item. */
  readonly text: LiveText;
  /** Arguments of a tool call as raw JSON while the model writes them. */
  readonly input: LiveText;
  /** Output of a tool call. */
  readonly output: LiveText;
  readonly startedAtMs: number | null;
}

/** An event shown as a line of its own: a push, a pull request, a failed effect, or an unknown kind. */
export interface MilestoneView {
  readonly entry: "milestone";
  readonly event: Event;
}

/** Connections of the sandbox to one host, as often as they were decided the same way. */
export interface EgressView {
  readonly entry: "egress";
  readonly event: EgressEvent;
}

export type EgressEvent = Extract<Event, { type: "egress.decided" }>;

/** What somebody said to the turn while it ran. */
export interface InsertedView {
  readonly entry: "prompt";
  readonly prompt: Prompt;
}

export type EntryView = ItemView | MilestoneView | EgressView | InsertedView;

/** A service of the environment as last heard of. */
export interface ServiceView {
  readonly name: string;
  readonly state: ServiceState;
  readonly reason: string;
}

/** The running attempt to ask the model again. */
export interface RetryView {
  readonly attempt: number;
  readonly delayMs: number;
  readonly atMs: number;
  readonly problem: Problem;
}

/** All the agent did for one prompt, in order. */
export interface TurnView {
  readonly id: string;
  readonly promptId: string;
  readonly model: string;
  readonly isScripted: boolean;
  readonly startedAtMs: number;
  readonly endedAtMs: number | null;
  readonly isStopping: boolean;
  readonly retry: RetryView | null;
  readonly outcome: TurnOutcome | null;
  readonly usage: Usage | null;
  /** What it used of the sandbox. */
  readonly sandboxUsage: SandboxUsage | null;
  /** Prompts that it was told; they end with it. */
  readonly told: readonly string[];
  readonly entries: readonly EntryView[];
}

/** The sandbox as last heard of. */
export interface SandboxView {
  readonly id: string;
  readonly state: SandboxState;
  readonly problem: Problem | null;
}

/** What is on the session's branch. */
export interface ChangeView {
  /** Which of the workspace's other repositories; null: the session's own. */
  readonly repository: WorkspaceRepository | null;
  readonly branch: string;
  readonly commit: string;
  readonly additions: number;
  readonly deletions: number;
  readonly files: readonly string[];
}

/** All that a session page shows. */
export interface SessionView {
  /** Number of the last event taken in; the cursor to reconnect with. */
  readonly lastSeq: number;
  /** Number of the last event that is not in it: what came up to it can be read as history. 0: nothing is left out. */
  readonly firstSeq: number;
  /** Whether every event that existed when the stream joined is in. */
  readonly isCaughtUp: boolean;
  /** An event came out of order and was left out; the stream must be joined again at `lastSeq`. */
  readonly hasGap: boolean;
  readonly id: string;
  readonly title: string;
  readonly state: SessionState;
  readonly repository: string;
  readonly baseBranch: string;
  readonly branch: string;
  readonly model: string;
  readonly isScripted: boolean;
  readonly createdBy: Person | null;
  /** The owner first, then in the order in which they came. */
  readonly members: readonly Member[];
  /** What people of the server may do who are not among them. */
  readonly access: SessionAccess;
  /** When the agent is told prompts that do not say it themselves. */
  readonly delivery: Delivery;
  /** Whether what waits stays until somebody lets it go on. */
  readonly isQueuePaused: boolean;
  /** What was given up outside and can be tried again. */
  readonly failedEffects: readonly { readonly key: string }[];
  /** The session that it began as a copy of. */
  readonly forkedFrom: string | null;
  readonly prompts: readonly PromptView[];
  readonly turns: readonly TurnView[];
  /** Milestones that came before the first turn. */
  readonly preamble: readonly (MilestoneView | EgressView)[];
  readonly sandbox: SandboxView | null;
  /** In the order in which they were first heard of; those of a sandbox that is gone are gone. */
  readonly services: readonly ServiceView[];
  /** What was pushed last, once for each repository. */
  readonly changes: readonly ChangeView[];
  /** Number of the last event that told of changed files since the last push; 0: none did. */
  readonly filesChangedSeq: number;
  readonly pullRequests: readonly PullRequestLink[];
  /** Who watches now. */
  readonly presence: Presence;
  /** Why the server closed the stream, until it is joined again. */
  readonly closing: Problem | null;
}

export const NOBODY: Presence = { watching: [], guests: 0 };

/** The view before the first frame. */
export const EMPTY_SESSION_VIEW: SessionView = {
  lastSeq: 0,
  firstSeq: 0,
  isCaughtUp: false,
  hasGap: false,
  id: "",
  title: "",
  state: "created",
  repository: "",
  baseBranch: "",
  branch: "",
  model: "",
  isScripted: false,
  createdBy: null,
  members: [],
  access: "viewer",
  delivery: "queue",
  isQueuePaused: false,
  failedEffects: [],
  forkedFrom: null,
  prompts: [],
  turns: [],
  preamble: [],
  sandbox: null,
  services: [],
  changes: [],
  filesChangedSeq: 0,
  pullRequests: [],
  presence: NOBODY,
  closing: null,
};

/** Prompts that wait, oldest first. */
export function queuedPrompts(view: SessionView): readonly PromptView[] {
  return view.prompts.filter((prompt) => prompt.state === "queued");
}

/** The turn that has not ended, if there is one. */
export function runningTurn(view: SessionView): TurnView | null {
  const last = view.turns.at(-1);
  return last !== undefined && last.outcome === null ? last : null;
}

const RANKS: Record<Role, number> = { viewer: 1, editor: 2, owner: 3 };

/** What a person of the server may do in a session; null: not even know of it. */
export function roleOf(
  session: Pick<SessionView, "members" | "access">,
  me: { id: string; is_owner?: boolean },
): Role | null {
  if (me.is_owner === true) return "owner";
  const own = session.members.find((member) => member.person.id === me.id)?.role ?? null;
  const others = session.access === "members" ? null : session.access;
  if (own === null || others === null) return own ?? others;
  return RANKS[own] >= RANKS[others] ? own : others;
}
