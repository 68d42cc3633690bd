// The turns of a session in order. Long sessions show their newest entries first and earlier ones on demand, so that
// five thousand items cost no more than a few hundred.
import {
  problemOf,
  runningTurn,
  type EntryView,
  type GreenroomClient,
  type PromptView,
  type Role,
  type SandboxState,
  type SessionView,
  type TurnOutcome,
  type TurnView,
} from "@greenroom/sdk";
import { memo, useMemo, useState } from "react";
import { ScriptedBadge } from "../ui/badge.tsx";
import { Button } from "../ui/button.tsx";
import { ProblemNotice } from "../ui/notice.tsx";
import { formatBytes, formatCount, formatDuration } from "../ui/time.ts";
import { newestEntries } from "./newest-entries.ts";
import { PromptCard } from "./prompt-card.tsx";
import { SessionContext } from "./session-context.ts";
import { TranscriptEntry } from "./transcript-entry.tsx";

const FIRST_ENTRIES = 300;
const MORE_ENTRIES = 600;

/** What came before the part of a long session that was opened. */
export interface Earlier {
  readonly isLoading: boolean;
  readonly error: unknown;
  readonly load: () => Promise<void>;
}

export function Transcript({
  client: by,
  view,
  role,
  earlier,
}: {
  client: GreenroomClient;
  view: SessionView;
  role: Role | null;
  earlier: Earlier;
}) {
  const [limit, setLimit] = useState(FIRST_ENTRIES);
  const running = runningTurn(view);
  const { turns, hidden } = newestEntries(view.turns, limit);
  const { id: sessionId, failedEffects } = view;
  const facts = useMemo(
    () => ({ by, sessionId, failedEffects, role }),
    [by, sessionId, failedEffects, role],
  );
  return (
    <SessionContext value={facts}>
    <div className="grid min-w-0 gap-6">
      {earlier.error !== null && (
        <ProblemNotice
          problem={problemOf(earlier.error)}
          title="What came before could not be loaded"
        />
      )}
      {(hidden > 0 || view.firstSeq > 0) && (
        <div className="text-center">
          <Button
            disabled={earlier.isLoading}
            onClick={() => {
              setLimit(limit + MORE_ENTRIES);
              if (hidden < MORE_ENTRIES) void earlier.load();
            }}
          >
            {earlier.isLoading
              ? "Loading…"
              : view.firstSeq > 0
                ? "Show earlier"
                : `Show earlier (${String(hidden)} more)`}
          </Button>
        </div>
      )}
      {hidden === 0 &&
        view.firstSeq === 0 &&
        view.preamble.map((entry) => <TranscriptEntry key={entry.event.seq} entry={entry} />)}
      {turns.map((turn) => (
        <Turn
          key={turn.id}
          turn={turn}
          prompt={view.prompts.find((prompt) => prompt.prompt.id === turn.promptId) ?? null}
          sandbox={turn.id === running?.id ? (view.sandbox?.state ?? null) : null}
          showsModel={turn.model !== view.model || turn.isScripted !== view.isScripted}
        />
      ))}
    </div>
    </SessionContext>
  );
}

const Turn = memo(function Turn({
  turn,
  prompt,
  sandbox,
  showsModel,
}: {
  turn: TurnView;
  prompt: PromptView | null;
  sandbox: SandboxState | null;
  showsModel: boolean;
}) {
  // What came between two turns stands behind the end of the first.
  const [after, entries] = partition(turn.entries, isBetweenTurns);
  return (
    <div data-turn={turn.id} className="grid min-w-0 gap-3">
      {prompt !== null && <PromptCard prompt={prompt.prompt} />}
      {showsModel && (
        <p className="flex items-center gap-2 text-xs text-muted">
          {turn.model} {turn.isScripted && <ScriptedBadge />}
        </p>
      )}
      <div className="grid min-w-0 gap-2.5 sm:pl-9">
        <Entries entries={entries} />
        {turn.retry !== null && (
          <ProblemNotice
            look="warn"
            title={`Attempt ${String(turn.retry.attempt)} failed, asking again`}
            problem={turn.retry.problem}
          />
        )}
        {turn.outcome === null ? (
          <Working turn={turn} sandbox={sandbox} />
        ) : (
          <TurnEnd turn={turn} />
        )}
      </div>
      <Entries entries={after} />
    </div>
  );
});

function isBetweenTurns(entry: EntryView): boolean {
  return entry.entry === "milestone" && entry.event.type === "session.forked";
}

function partition<T>(all: readonly T[], is: (one: T) => boolean): [T[], T[]] {
  return [all.filter(is), all.filter((one) => !is(one))];
}

function keyOf(entry: EntryView): string | number {
  switch (entry.entry) {
    case "item":
      return entry.id;
    case "prompt":
      return entry.prompt.id;
    default:
      return entry.event.seq;
  }
}

function Entries({ entries }: { entries: readonly EntryView[] }) {
  return entries.map((entry) => (
    <div
      key={keyOf(entry)}
      className="lazy-paint min-w-0 empty:hidden"
    >
      <TranscriptEntry entry={entry} />
    </div>
  ));
}

const WAITING: Partial<Record<SandboxState, string>> = {
  starting: "Sandbox is starting",
  syncing: "Sandbox fetches the branch",
  snapshotting: "Keeping the workspace",
  lost: "Sandbox was lost",
};

function Working({ turn, sandbox }: { turn: TurnView; sandbox: SandboxState | null }) {
  const detail = sandbox === null ? undefined : WAITING[sandbox];
  return (
    <p role="status" className="flex items-center gap-2 text-[13px] text-muted">
      <span className="size-2 rounded-full bg-accent pulse-dot" aria-hidden="true" />
      {turn.isStopping ? "Stopping" : "Working"}
      {detail !== undefined && <span>· {detail}</span>}
    </p>
  );
}

const ENDS: Record<TurnOutcome["result"], string> = {
  completed: "Completed",
  stopped: "Stopped",
  failed: "Failed",
};

function TurnEnd({ turn }: { turn: TurnView }) {
  const { outcome, usage, sandboxUsage } = turn;
  if (outcome === null) return null;
  const parts = [
    turn.endedAtMs === null ? "" : formatDuration(turn.endedAtMs - turn.startedAtMs),
    usage === null || usage.input_tokens + usage.output_tokens === 0
      ? ""
      : `${formatCount(usage.input_tokens + usage.cache_read_tokens + usage.cache_write_tokens)} tokens in, ${formatCount(usage.output_tokens)} out`,
    ...(sandboxUsage === null
      ? []
      : [
          `${formatDuration(sandboxUsage.cpu_ms)} CPU`,
          `${formatBytes(sandboxUsage.peak_memory_bytes)} memory`,
          `${formatBytes(sandboxUsage.disk_bytes)} on disk`,
        ]),
  ].filter((part) => part !== "");
  const line = (
    <p className="text-xs text-muted tabular-nums">
      <span className={outcome.result === "stopped" ? "font-medium text-warn" : ""}>
        {ENDS[outcome.result]}
      </span>
      {parts.map((part) => (
        // Breaks between facts, never inside one.
        <span key={part}>
          {" · "}
          <span className="whitespace-nowrap">{part}</span>
        </span>
      ))}
    </p>
  );
  if (outcome.result !== "failed") return line;
  return (
    <>
      <ProblemNotice problem={outcome.problem} title="The turn failed" />
      {line}
    </>
  );
}
