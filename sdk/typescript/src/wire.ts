// Names of everything the API exchanges. Mirrors crates/protocol/src/client; must hold no logic.
// A union in Rust with an unknown arm keeps unknown kinds at run time; the reducer treats them in its default arms.

export interface Person {
  id: string;
  name: string;
  email: string;
}
export interface SignIn {
  token: string;
}
export interface UpdateMe {
  name?: string;
  email?: string;
}
export interface CreateToken {
  label: string;
}
export interface CreatedToken {
  id: string;
  label: string;
  secret: string;
}
export interface StreamTicket {
  ticket: string;
}
export interface Health {
  status: string;
  version: string;
  generation: number;
}

export interface Problem {
  code: string;
  message: string;
  hint?: string | null;
  retryable?: boolean;
  retry_after_ms?: number | null;
}

export interface Model {
  id: string;
  label: string;
  is_scripted: boolean;
  is_default: boolean;
}
export interface ModelList {
  models: Model[];
}
export interface Usage {
  input_tokens: number;
  output_tokens: number;
  cache_read_tokens: number;
  cache_write_tokens: number;
}

export type PromptState = "queued" | "running" | "completed" | "failed" | "cancelled";
export interface ImageAttachment {
  media_type: string;
  data_base64: string;
}
export interface Prompt {
  id: string;
  author: Person;
  text: string;
  images?: ImageAttachment[];
  model?: string | null;
  queued_at_ms: number;
}
export interface SendPrompt {
  text: string;
  images?: ImageAttachment[];
  model?: string | null;
}
export interface PromptReceipt {
  prompt_id: string;
  seq: number;
}

export type SessionState = "created" | "idle" | "running" | "stopping" | "asleep" | "archived";
export type PullRequestState = "open" | "merged" | "closed";
export interface PullRequestLink {
  repository: string;
  number: number;
  title: string;
  state: PullRequestState;
  path: string;
}
export interface Session {
  id: string;
  title: string;
  state: SessionState;
  repository: string;
  base_branch: string;
  branch: string;
  model: string;
  is_scripted: boolean;
  created_by: Person;
  created_at_ms: number;
  updated_at_ms: number;
  last_seq: number;
  pull_requests: PullRequestLink[];
  last_error_code?: string | null;
}
export interface CreateSession {
  repository: string;
  base_branch?: string | null;
  model?: string | null;
  prompt?: string | null;
  images?: ImageAttachment[];
}
export interface CreatedSession {
  session: Session;
  prompt?: PromptReceipt | null;
}
export interface SessionList {
  sessions: Session[];
  next_cursor?: string | null;
}

export interface Repository {
  name: string;
  default_branch?: string | null;
  clone_url: string;
  source?: string | null;
  created_at_ms: number;
}
export interface AddRepository {
  name: string;
  source?: string | null;
}
export interface RepositoryList {
  repositories: Repository[];
}
export interface Branch {
  name: string;
  commit: string;
}
export interface BranchList {
  branches: Branch[];
}

export type Mergeability =
  | { status: "clean" }
  | { status: "conflicting"; paths: string[] }
  | { status: "nothing_to_merge" }
  | { status: "not_applicable" };
export type MergeMethod = "merge" | "squash" | "rebase";
export interface MergeRecord {
  method: MergeMethod;
  commit: string;
  by: Person;
  at_ms: number;
}
export interface LinePosition {
  path: string;
  line: number;
}
export interface Comment {
  id: number;
  author: Person;
  body: string;
  position?: LinePosition | null;
  at_ms: number;
}
export type ReviewVerdict = "approve" | "request_changes" | "comment";
export interface Review {
  id: number;
  author: Person;
  verdict: ReviewVerdict;
  body: string;
  commit: string;
  at_ms: number;
}
export interface PullRequest {
  repository: string;
  number: number;
  title: string;
  body: string;
  state: PullRequestState;
  author: Person;
  session?: string | null;
  prompted_by?: Person[];
  head_branch: string;
  base_branch: string;
  head_commit: string;
  base_commit: string;
  mergeability: Mergeability;
  comments: Comment[];
  reviews: Review[];
  is_head_branch_deleted: boolean;
  merge?: MergeRecord | null;
  created_at_ms: number;
  updated_at_ms: number;
}
export interface OpenPullRequest {
  title: string;
  body?: string;
  head_branch: string;
  base_branch?: string | null;
}
export interface AddComment {
  body: string;
  position?: LinePosition | null;
}
export interface AddReview {
  verdict: ReviewVerdict;
  body?: string;
}
export interface MergePullRequest {
  method: MergeMethod;
  expected_head_commit?: string | null;
  delete_head_branch?: boolean;
}
export interface Commit {
  id: string;
  author_name: string;
  author_email: string;
  committer_name: string;
  committer_email: string;
  message: string;
  committed_at_ms: number;
}
export interface CommitList {
  commits: Commit[];
}
export interface PullRequestList {
  pull_requests: PullRequest[];
}
export type FileStatus = "added" | "modified" | "deleted" | "renamed";
export interface FileDiff {
  path: string;
  old_path?: string | null;
  status: FileStatus;
  additions: number;
  deletions: number;
  is_binary: boolean;
  patch: string;
}
export interface Diff {
  files: FileDiff[];
  additions: number;
  deletions: number;
  is_truncated: boolean;
}

export type ToolCallStatus = "running" | "succeeded" | "failed" | "interrupted";
export interface ToolCallItem {
  tool: string;
  summary: string;
  input: unknown;
  status: ToolCallStatus;
  output: string;
  duration_ms?: number | null;
}
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
  | { kind: "notice"; problem: Problem };
export type Item = { id: string } & ItemBody;

export type SandboxState =
  | "starting"
  | "syncing"
  | "ready"
  | "busy"
  | "snapshotting"
  | "stopped"
  | "lost";
export type TurnOutcome =
  | { result: "completed" }
  | { result: "failed"; problem: Problem }
  | { result: "stopped"; by: string };

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
    }
  | { type: "session.titled"; title: string }
  | { type: "session.state_changed"; state: SessionState }
  | { type: "prompt.queued"; prompt: Prompt }
  | { type: "prompt.cancelled"; prompt_id: string; by: string }
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
    }
  | {
      type: "sandbox.state_changed";
      sandbox_id: string;
      state: SandboxState;
      problem?: Problem | null;
    }
  | {
      type: "change.pushed";
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
  | { type: "effect.failed"; effect: string; problem: Problem };
export type Event = { seq: number; at_ms: number } & EventBody;
export interface EventPage {
  events: Event[];
  last_seq: number;
}

export type DeltaChannel = "message" | "reasoning" | "input" | "output";
export type StreamFrame =
  | { frame: "hello"; generation: number; session_id: string; last_seq: number }
  | { frame: "event"; event: Event }
  | { frame: "caught_up"; last_seq: number }
  | { frame: "delta"; item_id: string; channel: DeltaChannel; offset: number; text: string }
  | { frame: "session"; session: Session }
  | { frame: "closing"; problem: Problem; last_seq: number };
