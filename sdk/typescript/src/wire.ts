// Names of everything the API exchanges, from the types generated out of Rust; must hold no logic.
// Events, items and frames are written out: their Rust unions end in an unknown arm, which would stop TypeScript from
// telling the known kinds apart. wire.test.ts holds them to the schema.
import type { components } from "./generated.ts";

// A union in Rust with an unknown arm keeps unknown kinds at run time; the reducer treats them in its default arms.

export type Person = components["schemas"]["Person"];
export type Me = components["schemas"]["Me"];
export type Account = components["schemas"]["Account"];
export type AccountList = components["schemas"]["AccountList"];
export type AddPerson = components["schemas"]["AddPerson"];
export type AddedPerson = components["schemas"]["AddedPerson"];
export type SignInLink = components["schemas"]["SignInLink"];
export type AuditEntry = components["schemas"]["AuditEntry"];
export type AuditPage = components["schemas"]["AuditPage"];
export type Role = components["schemas"]["Role"];
export type Member = components["schemas"]["Member"];
export type MemberList = components["schemas"]["MemberList"];
export type SessionAccess = components["schemas"]["SessionAccess"];
export type LinkKind = components["schemas"]["LinkKind"];
export type CreateLink = components["schemas"]["CreateLink"];
export type CreatedLink = components["schemas"]["CreatedLink"];
export type SessionLink = components["schemas"]["SessionLink"];
export type SessionLinkList = components["schemas"]["SessionLinkList"];
export type JoinedSession = components["schemas"]["JoinedSession"];
export type SignIn = components["schemas"]["SignIn"];
export type UpdateMe = components["schemas"]["UpdateMe"];
export type CreateToken = components["schemas"]["CreateToken"];
export type CreatedToken = components["schemas"]["CreatedToken"];
export type StreamTicket = components["schemas"]["StreamTicket"];
export type Health = components["schemas"]["Health"];

export type Problem = components["schemas"]["Problem"];

export type Model = components["schemas"]["Model"];
export type ModelList = components["schemas"]["ModelList"];
export type Usage = components["schemas"]["Usage"];

export type PromptState = "queued" | "running" | "completed" | "failed" | "cancelled";
export type ImageAttachment = components["schemas"]["ImageAttachment"];
export type PromptImage = components["schemas"]["PromptImage"];
export type Prompt = components["schemas"]["Prompt"];
export type SendPrompt = components["schemas"]["SendPrompt"];
export type ChangePrompt = components["schemas"]["ChangePrompt"];
export type PromptReceipt = components["schemas"]["PromptReceipt"];

export type SessionState = components["schemas"]["SessionState"];
export type PullRequestState = components["schemas"]["PullRequestState"];
export type WorkspaceRepository = components["schemas"]["WorkspaceRepository"];
export type PullRequestLink = components["schemas"]["PullRequestLink"];
export type Session = components["schemas"]["Session"];
export type CreateSession = components["schemas"]["CreateSession"];
export type ForkSession = components["schemas"]["ForkSession"];
export type ForkedSession = components["schemas"]["ForkedSession"];
export type CreatedSession = components["schemas"]["CreatedSession"];
export type SessionList = components["schemas"]["SessionList"];

export type Repository = components["schemas"]["Repository"];
export type Image = components["schemas"]["Image"];
export type ImageList = components["schemas"]["ImageList"];
export type ImageLog = components["schemas"]["ImageLog"];
export type ImageState = components["schemas"]["ImageState"];
export type ImageStep = components["schemas"]["ImageStep"];
export type BuildImage = components["schemas"]["BuildImage"];
export type TypingReport = components["schemas"]["TypingReport"];
export type AddRepository = components["schemas"]["AddRepository"];
export type RepositoryList = components["schemas"]["RepositoryList"];
export type Branch = components["schemas"]["Branch"];
export type BranchList = components["schemas"]["BranchList"];

export type Mergeability = components["schemas"]["Mergeability"];
export type MergeMethod = components["schemas"]["MergeMethod"];
export type MergeRecord = components["schemas"]["MergeRecord"];
export type LinePosition = components["schemas"]["LinePosition"];
export type Comment = components["schemas"]["Comment"];
export type ReviewVerdict = components["schemas"]["ReviewVerdict"];
export type Review = components["schemas"]["Review"];
export type PullRequest = components["schemas"]["PullRequest"];
export type OpenPullRequest = components["schemas"]["OpenPullRequest"];
export type AddComment = components["schemas"]["AddComment"];
export type AddReview = components["schemas"]["AddReview"];
export type MergePullRequest = components["schemas"]["MergePullRequest"];
export type Commit = components["schemas"]["Commit"];
export type CommitList = components["schemas"]["CommitList"];
export type PullRequestList = components["schemas"]["PullRequestList"];
export type FileStatus = components["schemas"]["FileStatus"];
export type FileDiff = components["schemas"]["FileDiff"];
export type Diff = components["schemas"]["Diff"];
export type SessionDiff = components["schemas"]["SessionDiff"];
/** What became of one path. */
export type FileChange = components["schemas"]["Change"];

export type ToolCallStatus = components["schemas"]["ToolCallStatus"];
export type ToolCallItem = components["schemas"]["ToolCallItem"];
export type ArtifactItem = components["schemas"]["ArtifactItem"];
export interface FileChangeBody {
  path: string;
  patch: string;
  additions: number;
  deletions: number;
  tool_item?: string | null;
}
export type ItemBody =
  | { kind: "message"; text: string }
  | { kind: "reasoning"; text: string }
  | ({ kind: "tool_call" } & ToolCallItem)
  | ({ kind: "file_change" } & FileChangeBody)
  | ({ kind: "artifact" } & ArtifactItem)
  | { kind: "notice"; problem: Problem };
export type Item = { id: string } & ItemBody;

export type SandboxState = components["schemas"]["SandboxState"];
export type SandboxUsage = components["schemas"]["SandboxUsage"];
export type ServiceState = components["schemas"]["ServiceState"];
export type EgressProtocol = components["schemas"]["EgressProtocol"];
export type EgressVerdict = components["schemas"]["EgressVerdict"];
export type Delivery = components["schemas"]["Delivery"];
export type FailedEffect = components["schemas"]["FailedEffect"];
export type UpdateSession = components["schemas"]["UpdateSession"];
export type TurnOutcome = components["schemas"]["TurnOutcome"];

export type EventBody =
  | {
      type: "session.created";
      session_id: string;
      title: string;
      repository: string;
      base_branch: string;
      branch: string;
      model: string;
      is_scripted: boolean;
      created_by: Person;
      access?: SessionAccess;
    }
  | { type: "session.forked"; from: string; snapshot_id?: string; by: Person }
  | { type: "session.titled"; title: string; by?: string | null }
  | { type: "session.delivery_changed"; delivery: Delivery; by: string }
  | { type: "session.queue_changed"; is_paused: boolean; by: string }
  | { type: "session.access_changed"; access: SessionAccess; by: string }
  | { type: "session.member_changed"; person: Person; role?: Role; by: string }
  | { type: "session.handed_over"; to: Person; by: string }
  | { type: "session.state_changed"; state: SessionState }
  | { type: "session.archived"; by?: string | null }
  | { type: "session.unarchived"; by: string }
  | { type: "prompt.queued"; prompt: Prompt; key?: string | null }
  | { type: "prompt.cancelled"; prompt_id: string; by: string }
  | { type: "prompt.edited"; prompt_id: string; text: string; by: string }
  | { type: "prompt.moved"; prompt_id: string; position: number; by: string }
  | { type: "prompt.delivery_changed"; prompt_id: string; delivery: Delivery; by: string }
  | { type: "prompt.inserted"; turn_id: string; prompt_id: string }
  | {
      type: "turn.started";
      turn_id: string;
      prompt_id: string;
      model: string;
      is_scripted: boolean;
    }
  | { type: "item.started"; turn_id: string; item: Item }
  | { type: "item.completed"; turn_id: string; item: Item }
  | {
      type: "turn.retrying";
      turn_id: string;
      attempt: number;
      delay_ms: number;
      problem: Problem;
    }
  | { type: "turn.resumed"; turn_id: string }
  | { type: "turn.stopping"; turn_id: string; by: string }
  | {
      type: "turn.completed";
      turn_id: string;
      prompt_id: string;
      outcome: TurnOutcome;
      usage: Usage;
      sandbox?: SandboxUsage | null;
    }
  | {
      type: "egress.decided";
      turn_id?: string | null;
      host: string;
      port: number;
      protocol: EgressProtocol;
      verdict: EgressVerdict;
      code: string;
      reason: string;
      hint?: string | null;
      count: number;
    }
  | { type: "service.state_changed"; name: string; state: ServiceState; reason: string }
  | { type: "workspace.changed"; files: FileChange[]; is_incomplete?: boolean }
  | {
      type: "sandbox.state_changed";
      sandbox_id: string;
      state: SandboxState;
      problem?: Problem | null;
    }
  | {
      type: "change.pushed";
      repository?: WorkspaceRepository | null;
      branch: string;
      commit: string;
      additions: number;
      deletions: number;
      files: string[];
    }
  | {
      type: "pull_request.opened";
      repository: string;
      number: number;
      title: string;
      path: string;
    }
  | {
      type: "pull_request.state_changed";
      repository: string;
      number: number;
      state: PullRequestState;
    }
  | {
      type: "effect.failed";
      effect: string;
      effect_key?: string | null;
      repository?: string | null;
      problem: Problem;
    }
  | { type: "effect.retried"; effect_key: string; by: string }
  | { type: "effect.superseded"; effect_key: string };
export type Event = { seq: number; at_ms: number } & EventBody;
export interface EventPage {
  events: Event[];
  last_seq: number;
}

export type SessionOverview = components["schemas"]["SessionOverview"];
/** A part of a session's log before what is known. */
export interface History {
  overview?: SessionOverview | null;
  events: Event[];
}

export type DeltaChannel = components["schemas"]["DeltaChannel"];
export type DraftState = components["schemas"]["DraftState"];
export type Watcher = components["schemas"]["Watcher"];
export type Presence = components["schemas"]["Presence"];

export type StreamFrame =
  | { frame: "hello"; generation: number; session_id: string; last_seq: number }
  | { frame: "overview"; overview: SessionOverview }
  | { frame: "event"; event: Event }
  | { frame: "caught_up"; last_seq: number }
  | { frame: "delta"; item_id: string; channel: DeltaChannel; offset: number; text: string }
  | { frame: "session"; session: Session }
  | { frame: "presence"; presence: Presence }
  | { frame: "closing"; problem: Problem; last_seq: number };
