// One entry of a turn as it is read: a message, reasoning, a tool call, a file change, a notice, a milestone.
import { problemOf, type EgressEvent, type EntryView, type Event, type Item, type ItemView } from "@greenroom/sdk";
import { Link } from "@tanstack/react-router";
import { lazy, memo, Suspense, useContext, useState, type ReactNode } from "react";
import { LazyMarkdown } from "../markdown/lazy-markdown.tsx";
import { useRetryEffect } from "../queries.ts";
import { LineCounts } from "../ui/badge.tsx";
import { Button } from "../ui/button.tsx";
import { Icon, type IconName } from "../ui/icon.tsx";
import { ProblemNotice, Words } from "../ui/notice.tsx";
import { PromptCard } from "./prompt-card.tsx";
import { Artifact } from "./kept-file.tsx";
import { maySteer, SessionContext } from "./session-context.ts";
import { ToolCall } from "./tool-call.tsx";

const PatchTable = lazy(async () => ({
  default: (await import("../diff/patch-table.tsx")).PatchTable,
}));

export const TranscriptEntry = memo(function TranscriptEntry({ entry }: { entry: EntryView }) {
  switch (entry.entry) {
    case "item":
      return <ItemEntry view={entry} />;
    case "egress":
      return <Egress event={entry.event} />;
    case "prompt":
      return <PromptCard prompt={entry.prompt} />;
    default:
      return <Milestone event={entry.event} />;
  }
});

function ItemEntry({ view }: { view: ItemView }): ReactNode {
  const item: Item = view.item;
  switch (item.kind) {
    case "message":
      if (view.text.text === "") return null;
      return (
        <div data-item={view.id} className={isLive(view) ? "is-live" : ""}>
          <LazyMarkdown text={view.text.text} />
          {view.progress === "interrupted" && <p className="text-xs text-warn">interrupted</p>}
        </div>
      );
    case "reasoning":
      return <Reasoning view={view} />;
    case "tool_call":
      return <ToolCall view={view} call={item} />;
    case "file_change":
      return <FileChange path={item.path} patch={item.patch} counts={item} />;
    case "artifact":
      return <Artifact artifact={item} />;
    case "notice":
      return <ProblemNotice look="info" problem={item.problem} />;
    default:
      return <UnknownKind kind={(item as { kind?: unknown }).kind} />;
  }
}

function isLive(view: ItemView): boolean {
  return view.progress === "running" || view.progress === "provisional";
}

function Reasoning({ view }: { view: ItemView }) {
  const [isOpen, setOpen] = useState(false);
  if (view.text.text === "" && !isLive(view)) return null;
  return (
    <div>
      <button
        type="button"
        aria-expanded={isOpen}
        onClick={() => {
          setOpen(!isOpen);
        }}
        className="-mx-1 flex items-center gap-1.5 rounded px-1 py-0.5 text-[13px] text-muted hover:text-text"
      >
        <Icon
          name="chevron"
          className={`size-3.5 transition-transform ${isOpen ? "rotate-90" : ""}`}
        />
        {isLive(view) ? "Reasoning…" : "Reasoning"}
      </button>
      {isOpen && (
        <div className="mt-1 ml-1.5 border-l-2 border-line pl-3 text-[13px] text-muted">
          <LazyMarkdown text={view.text.text} />
        </div>
      )}
    </div>
  );
}

function FileChange({
  path,
  patch,
  counts,
}: {
  path: string;
  patch: string;
  counts: { additions: number; deletions: number };
}) {
  const [isOpen, setOpen] = useState(counts.additions + counts.deletions <= 30);
  return (
    <div className="overflow-hidden rounded-md border border-line bg-surface">
      <button
        type="button"
        aria-expanded={isOpen}
        onClick={() => {
          setOpen(!isOpen);
        }}
        className="flex w-full items-center gap-2 px-2.5 py-1.5 text-left text-[13px] hover:bg-hover focus-visible:-outline-offset-2"
      >
        <Icon name="pencil" className="text-muted" />
        <span className="sr-only">File change</span>
        <span className="min-w-0 flex-1 truncate font-mono text-xs">{path}</span>
        <LineCounts additions={counts.additions} deletions={counts.deletions} />
        <Icon
          name="chevron"
          className={`size-3.5 text-faint transition-transform ${isOpen ? "rotate-90" : ""}`}
        />
      </button>
      {isOpen && patch !== "" && (
        <div className="max-h-112 overflow-y-auto border-t border-line">
          <Suspense fallback={<div className="skeleton h-16" />}>
            <PatchTable path={path} patch={patch} />
          </Suspense>
        </div>
      )}
    </div>
  );
}

function Line({ icon, look, children }: { icon: IconName; look: string; children: ReactNode }) {
  return (
    <p className="flex items-center gap-2 text-[13px] text-muted">
      <Icon name={icon} className={look} />
      <span className="min-w-0">{children}</span>
    </p>
  );
}

const EGRESS: Record<EgressEvent["verdict"], { icon: IconName; look: string }> = {
  allowed: { icon: "link", look: "text-faint" },
  allowed_with_credential: { icon: "key", look: "text-faint" },
  refused: { icon: "block", look: "text-warn" },
  failed: { icon: "alert", look: "text-warn" },
};

/** Quiet while all is well; a refused connection says why and what would allow it. */
function Egress({ event }: { event: EgressEvent }) {
  const { icon, look } = EGRESS[event.verdict];
  const target = event.port === 443 ? event.host : `${event.host}:${String(event.port)}`;
  const host = <code className="font-mono text-xs wrap-anywhere">{target}</code>;
  const count = event.count > 1 && (
    <span className="whitespace-nowrap text-muted tabular-nums"> · {event.count} times</span>
  );
  if (event.verdict === "allowed" || event.verdict === "allowed_with_credential") {
    return (
      <p className="flex items-center gap-2 text-xs text-muted" title={`${target} ${event.reason}`}>
        <Icon name={icon} className={look} />
        <span className="min-w-0">
          Connected to {host}
          {event.verdict === "allowed_with_credential" && " with a credential it cannot see"}
          {count}
        </span>
      </p>
    );
  }
  return (
    <div className="flex gap-2 text-[13px]">
      <Icon name={icon} className={`mt-0.5 ${look}`} />
      <div className="min-w-0">
        <p>
          {host} {event.reason}
          {count}
        </p>
        {event.hint != null && (
          <p className="mt-0.5 text-muted">
            <Words text={event.hint} />
          </p>
        )}
      </div>
    </div>
  );
}

function Milestone({ event }: { event: Event }): ReactNode {
  switch (event.type) {
    case "change.pushed":
      return (
        <Line icon="commit" look="text-muted">
          Pushed <code className="font-mono text-xs">{event.commit.slice(0, 7)}</code> to{" "}
          <code className="font-mono text-xs break-all">{event.branch}</code>{" "}
          {event.repository != null && (
            <>
              of <code className="font-mono text-xs break-all">{event.repository.name}</code>{" "}
            </>
          )}
          <LineCounts additions={event.additions} deletions={event.deletions} />
        </Line>
      );
    case "session.forked":
      return (
        <div className="my-1 flex items-center gap-3 text-xs text-muted">
          <span className="h-px flex-1 bg-line" aria-hidden="true" />
          <span className="inline-flex items-center gap-1.5">
            <Icon name="branch" className="size-3.5" />
            <span>
              {event.by.name} forked{" "}
              <Link
                to="/sessions/$sessionId"
                params={{ sessionId: event.from }}
                className="font-medium text-accent underline underline-offset-2"
              >
                the session before
              </Link>{" "}
              here
            </span>
          </span>
          <span className="h-px flex-1 bg-line" aria-hidden="true" />
        </div>
      );
    case "pull_request.opened":
      return (
        <div className="rounded-md border border-good/30 bg-good-soft px-3 py-2 text-[13px]">
          <Line icon="pull_request" look="text-good">
            <span className="text-text">
              Opened pull request{" "}
              <PullRequestLink repository={event.repository} number={event.number}>
                {event.repository}#{event.number} {event.title}
              </PullRequestLink>
            </span>
          </Line>
        </div>
      );
    case "pull_request.state_changed":
      return (
        <Line
          icon={event.state === "merged" ? "merge" : "pull_request"}
          look={event.state === "merged" ? "text-merged" : "text-muted"}
        >
          Pull request{" "}
          <PullRequestLink repository={event.repository} number={event.number}>
            #{event.number}
          </PullRequestLink>{" "}
          {event.state === "open" ? "was opened again" : `was ${event.state}`}
        </Line>
      );
    case "effect.failed":
      return <FailedEffect event={event} />;
    default:
      return <UnknownKind kind={event.type} />;
  }
}

function PullRequestLink({
  repository,
  number,
  children,
}: {
  repository: string;
  number: number;
  children: ReactNode;
}) {
  return (
    <Link
      to="/repositories/$repository/pull-requests/$number"
      params={{ repository, number: String(number) }}
      className="font-medium text-accent underline underline-offset-2"
    >
      {children}
    </Link>
  );
}

function UnknownKind({ kind }: { kind: unknown }) {
  return (
    <Line icon="info" look="text-muted">
      Something this page does not know yet: {String(kind)}
    </Line>
  );
}

/** What was given up outside. The last word on it can be tried again. */
function FailedEffect({ event }: { event: Extract<Event, { type: "effect.failed" }> }) {
  const { sessionId, failedEffects, role } = useContext(SessionContext);
  const retry = useRetryEffect(sessionId);
  const key = event.effect_key ?? null;
  const canRetry = maySteer(role) && key !== null && failedEffects.some((failed) => failed.key === key);
  return (
    <div className="grid gap-2">
      <ProblemNotice problem={event.problem} title={`Gave up: ${event.effect.replaceAll("_", " ")}`} />
      {canRetry && (
        <div>
          <Button
            disabled={retry.isPending}
            onClick={() => {
              retry.mutate(key);
            }}
          >
            Try again
          </Button>
        </div>
      )}
      {retry.error !== null && <ProblemNotice problem={problemOf(retry.error)} />}
    </div>
  );
}
