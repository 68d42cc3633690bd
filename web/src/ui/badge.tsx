// Small marks: states, kinds, people. Pure presentation.
import type { Person, PullRequestState, ServiceState, ServiceView, SessionState } from "@greenroom/sdk";
import type { ReactNode } from "react";
import { Icon, type IconName } from "./icon.tsx";

const TONES = {
  neutral: "bg-sunken text-muted border-line",
  good: "bg-good-soft text-good border-good/25",
  bad: "bg-bad-soft text-bad border-bad/25",
  warn: "bg-warn-soft text-warn border-warn/25",
  merged: "bg-merged-soft text-merged border-merged/25",
  info: "bg-info-soft text-info border-info/25",
} as const;

export type Tone = keyof typeof TONES;

export function Badge({ tone = "neutral", children }: { tone?: Tone; children: ReactNode }) {
  return (
    <span
      className={`inline-flex h-5 items-center gap-1 rounded-full border px-1.5 text-xs font-medium whitespace-nowrap ${TONES[tone]}`}
    >
      {children}
    </span>
  );
}

/** Says that a model plays a script; shown wherever its name is. */
export function ScriptedBadge() {
  return (
    <Badge tone="warn">
      <Icon name="spark" className="size-3" />
      scripted demo model
    </Badge>
  );
}

const PULL_REQUESTS: Record<PullRequestState, { tone: Tone; icon: IconName; label: string }> = {
  open: { tone: "good", icon: "pull_request", label: "Open" },
  merged: { tone: "merged", icon: "merge", label: "Merged" },
  closed: { tone: "bad", icon: "close", label: "Closed" },
};

/** With `repository` where it is not clear which one is meant. */
export function PullRequestBadge({
  state,
  number,
  repository,
}: {
  state: PullRequestState;
  number?: number;
  repository?: string;
}) {
  const look = PULL_REQUESTS[state];
  return (
    <Badge tone={look.tone}>
      <Icon name={look.icon} className="size-3" />
      {repository !== undefined && <span className="max-w-24 truncate">{repository}</span>}
      {number === undefined ? look.label : `#${String(number)}`}
      {number !== undefined && <span className="sr-only"> {look.label}</span>}
    </Badge>
  );
}

const SESSIONS: Record<SessionState, { dot: string; label: string }> = {
  created: { dot: "border border-line-strong", label: "New" },
  idle: { dot: "bg-faint", label: "Idle" },
  running: { dot: "bg-accent pulse-dot", label: "Running" },
  stopping: { dot: "bg-warn pulse-dot", label: "Stopping" },
  asleep: { dot: "bg-line-strong", label: "Asleep" },
  archived: { dot: "bg-line", label: "Archived" },
};

/** A dot with the state's name; `isFailed` says that the last prompt did not work out. */
export function SessionStateMark({ state, isFailed }: { state: SessionState; isFailed: boolean }) {
  const isShownAsFailed = isFailed && state !== "running" && state !== "stopping";
  const look = isShownAsFailed ? { dot: "bg-bad", label: "Failed" } : SESSIONS[state];
  return (
    <span className="inline-flex items-center gap-1.5 text-xs whitespace-nowrap text-muted">
      <span className={`size-2 shrink-0 rounded-full ${look.dot}`} aria-hidden="true" />
      {look.label}
    </span>
  );
}

const SERVICES: Record<ServiceState, { dot: string; label: string }> = {
  starting: { dot: "bg-info pulse-dot", label: "starting" },
  ready: { dot: "bg-good", label: "ready" },
  waiting: { dot: "bg-warn pulse-dot", label: "starts again" },
  ended: { dot: "bg-line-strong", label: "ended" },
  failed: { dot: "bg-bad", label: "failed" },
  stopped: { dot: "bg-line-strong", label: "stopped" },
};

/** A service of the environment with a dot for its state. */
export function ServiceMark({ service }: { service: ServiceView }) {
  const look = SERVICES[service.state];
  const title = service.reason === "" ? undefined : service.reason;
  return (
    <span className="inline-flex items-center gap-1.5 whitespace-nowrap" title={title}>
      <span className={`size-2 shrink-0 rounded-full ${look.dot}`} aria-hidden="true" />
      <span className="font-mono">{service.name}</span> {look.label}
    </span>
  );
}

const HUES = [155, 205, 262, 25, 330, 90];

/** A person's first letters on a colour of their own. */
export function Avatar({ person }: { person: Person }) {
  let sum = 0;
  for (const character of person.id) sum = (sum * 31 + (character.codePointAt(0) ?? 0)) % 997;
  const hue = HUES[sum % HUES.length] ?? 155;
  const initials = person.name
    .split(/\s+/u)
    .map((word) => Array.from(word)[0] ?? "")
    .slice(0, 2)
    .join("")
    .toUpperCase();
  return (
    <span
      aria-hidden="true"
      className="grid size-6 shrink-0 place-items-center rounded-full text-[10px] font-semibold text-white"
      style={{ backgroundColor: `hsl(${String(hue)} 42% 34%)` }}
    >
      {initials === "" ? "?" : initials}
    </span>
  );
}

/** Lines added and removed. */
export function LineCounts({ additions, deletions }: { additions: number; deletions: number }) {
  return (
    <span className="inline-flex gap-1.5 font-mono text-xs whitespace-nowrap">
      <span className="text-good">
        +{additions}
        <span className="sr-only"> lines added</span>
      </span>
      <span className="text-bad">
        −{deletions}
        <span className="sr-only"> lines removed</span>
      </span>
    </span>
  );
}
