// A session on a page, for whoever may see it: its head, its transcript, its changes, and what its page puts around them.
import { problemOf, runningTurn, type GreenroomClient, type Role, type SessionView } from "@greenroom/sdk";
import { Link } from "@tanstack/react-router";
import { Tabs } from "radix-ui";
import { lazy, Suspense, useRef, useState, type ReactNode } from "react";
import { useSessionDiff } from "../queries.ts";
import {
  LineCounts,
  PullRequestBadge,
  ScriptedBadge,
  ServiceMark,
  SessionStateMark,
} from "../ui/badge.tsx";
import { Button } from "../ui/button.tsx";
import { Icon } from "../ui/icon.tsx";
import { EmptyState, ProblemNotice, SkeletonRows } from "../ui/notice.tsx";
import { jumpToEnd, useStickToBottom } from "./stick-to-bottom.ts";
import { Transcript, type Earlier } from "./transcript.tsx";

const DiffView = lazy(async () => ({ default: (await import("../diff/diff-view.tsx")).DiffView }));

const TAB =
  "-mb-px flex h-9 items-center gap-2 border-b-2 border-transparent px-1 text-[13px] font-medium text-muted hover:text-text data-[state=active]:border-accent data-[state=active]:text-text";

export function SessionTabs({
  client,
  view,
  role,
  earlier,
  unsent,
  actions,
  bottom,
}: {
  client: GreenroomClient;
  view: SessionView;
  /** Null: whoever looks is not signed in. */
  role: Role | null;
  earlier: Earlier;
  /** Stands behind the transcript: what is on its way to the server. */
  unsent?: ReactNode;
  /** Stand beside the tabs. */
  actions: ReactNode;
  /** Stands below the transcript and stays in sight. */
  bottom: ReactNode;
}) {
  const [tab, setTab] = useState("transcript");
  const content = useRef<HTMLDivElement>(null);
  const isAtEnd = useStickToBottom(content);
  const isGuest = role === null;
  return (
    <Tabs.Root value={tab} onValueChange={setTab} className="flex flex-1 flex-col">
      <SessionHead view={view} isGuest={isGuest} />
      <div className="sticky top-12 z-20 border-b border-line bg-canvas">
        <div className="mx-auto flex w-full max-w-4xl flex-wrap items-center gap-x-3 px-3 sm:px-6">
          <Tabs.List aria-label="Session" className="flex flex-1 gap-5">
            <Tabs.Trigger value="transcript" className={TAB}>
              Transcript
            </Tabs.Trigger>
            <Tabs.Trigger value="changes" className={TAB}>
              Changes
              {view.changes.length > 0 && (
                <LineCounts
                  additions={total(view.changes.map((change) => change.additions))}
                  deletions={total(view.changes.map((change) => change.deletions))}
                />
              )}
              {view.filesChangedSeq > 0 && runningTurn(view) !== null && (
                <span className="size-2 rounded-full bg-accent" title="Files changed since the last push">
                  <span className="sr-only">(not all pushed)</span>
                </span>
              )}
            </Tabs.Trigger>
          </Tabs.List>
          <div className="ml-auto flex max-w-full items-center gap-3">
            <Standing view={view} isGuest={isGuest} />
            {actions}
          </div>
        </div>
      </div>
      <Tabs.Content value="transcript" className="flex flex-1 flex-col" tabIndex={-1}>
        <div ref={content} className="mx-auto w-full max-w-4xl flex-1 px-3 py-5 sm:px-6">
          {view.lastSeq === 0 ? (
            <SkeletonRows count={4} />
          ) : view.turns.length === 0 && view.prompts.length === 0 && view.firstSeq === 0 ? (
            <EmptyState icon="sessions" title="Waiting for a prompt">
              Say what should change. The agent starts at once.
            </EmptyState>
          ) : (
            <Transcript client={client} view={view} role={role} earlier={earlier} />
          )}
          {unsent}
        </div>
        <div className="sticky bottom-0 z-10 border-t border-line bg-canvas">
          <div className="relative mx-auto grid w-full max-w-4xl gap-2 px-3 py-3 sm:px-6">
            {!isAtEnd && (
              <Button
                className="absolute -top-11 left-1/2 -translate-x-1/2 rounded-full shadow-float"
                onClick={jumpToEnd}
              >
                <Icon name="arrow_down" />
                Latest
              </Button>
            )}
            {bottom}
          </div>
        </div>
      </Tabs.Content>
      <Tabs.Content value="changes" className="flex-1" tabIndex={-1}>
        <div className="mx-auto w-full max-w-6xl px-3 py-5 sm:px-6">
          <Changes client={client} view={view} />
        </div>
      </Tabs.Content>
    </Tabs.Root>
  );
}

/** Why there is nothing to type in. */
export function WatchOnly({ children }: { children: ReactNode }) {
  return (
    <p className="flex items-center gap-2 rounded-md border border-line bg-sunken px-3 py-2 text-[13px] text-muted">
      <Icon name="info" />
      {children}
    </p>
  );
}

/** What must stay in sight while the transcript scrolls. */
function Standing({ view, isGuest }: { view: SessionView; isGuest: boolean }) {
  const isFailed = view.turns.at(-1)?.outcome?.result === "failed";
  return (
    <div className="flex min-w-0 flex-wrap items-center justify-end gap-2 py-1">
      {view.pullRequests.map((link) => (
        <Link
          key={`${link.repository}/${String(link.number)}`}
          to="/repositories/$repository/pull-requests/$number"
          params={{ repository: link.repository, number: String(link.number) }}
          disabled={isGuest}
          className="rounded-full"
          aria-label={`Pull request ${link.repository}#${String(link.number)}, ${link.state}: ${link.title}`}
        >
          <PullRequestBadge
            state={link.state}
            number={link.number}
            {...(link.repository !== view.repository && { repository: link.repository })}
          />
        </Link>
      ))}
      <SessionStateMark state={view.state} isFailed={isFailed} />
    </div>
  );
}

function SessionHead({ view, isGuest }: { view: SessionView; isGuest: boolean }) {
  const sandboxProblem = view.sandbox?.problem ?? null;
  return (
    <div className="mx-auto w-full max-w-4xl px-3 pt-4 pb-1 sm:px-6">
      {view.title === "" ? (
        <div className="skeleton h-6 w-2/3 rounded" />
      ) : (
        <h1 className="line-clamp-2 text-lg leading-6 font-semibold">{view.title}</h1>
      )}
      <div className="mt-1.5 flex flex-wrap items-center gap-x-3 gap-y-1.5 text-xs text-muted">
        {view.repository !== "" && (
          <span className="inline-flex items-center gap-1">
            <Icon name="repository" className="size-3.5" />
            {view.repository}
          </span>
        )}
        {view.branch !== "" && (
          <span className="inline-flex min-w-0 items-center gap-1" title={view.branch}>
            <Icon name="branch" className="size-3.5" />
            <span className="truncate font-mono">{view.branch}</span>
          </span>
        )}
        {view.forkedFrom !== null && !isGuest && (
          <Link
            to="/sessions/$sessionId"
            params={{ sessionId: view.forkedFrom }}
            className="underline underline-offset-2 hover:text-text"
          >
            forked from a session
          </Link>
        )}
        {view.sandbox !== null && <span>sandbox {view.sandbox.state}</span>}
        {view.services.map((service) => (
          <ServiceMark key={service.name} service={service} />
        ))}
        {view.isScripted ? <ScriptedBadge /> : <span>{view.model}</span>}
      </div>
      {view.services
        .filter((service) => service.state === "failed")
        .map((service) => (
          <p key={service.name} role="alert" className="mt-2 flex gap-2 text-[13px] text-bad">
            <Icon name="alert" className="mt-0.5" />
            <span>
              Service <code className="font-mono text-xs">{service.name}</code> failed
              {service.reason !== "" && <span className="text-text">: {service.reason}</span>}
            </span>
          </p>
        ))}
      {sandboxProblem !== null && (
        <div className="mt-2">
          <ProblemNotice look="warn" title="Sandbox" problem={sandboxProblem} />
        </div>
      )}
    </div>
  );
}

function total(numbers: readonly number[]): number {
  return numbers.reduce((sum, number) => sum + number, 0);
}

function Changes({ client, view }: { client: GreenroomClient; view: SessionView }) {
  const commits = view.changes.map((change) => change.commit);
  const hasChanges = commits.length > 0 || view.filesChangedSeq > 0;
  // A sandbox that comes or goes changes where the diff is read.
  const sandbox = view.sandbox?.state ?? "none";
  const version = [...commits, view.filesChangedSeq, sandbox].join(" ");
  const diff = useSessionDiff(client, view.id, hasChanges ? version : null);
  if (hasChanges && diff.data === undefined && diff.error === null) return <SkeletonRows count={4} />;
  const problem = diff.error !== null && (
    <ProblemNotice problem={problemOf(diff.error)} title="The diff could not be loaded" />
  );
  if (!hasChanges || diff.data === undefined || diff.data.files.length === 0) {
    return (
      problem || (
        <EmptyState icon="file" title="No changes yet">
          What the agent changes appears here as it happens, and stays when its commits reach the
          branch.
        </EmptyState>
      )
    );
  }
  return (
    <Suspense fallback={<SkeletonRows count={4} />}>
      <h2 className="sr-only">Changes</h2>
      {problem}
      <p className="mb-3 flex items-center gap-2 text-xs text-muted">
        {diff.data.source === "workspace" ? (
          <>
            <span aria-hidden className="size-2 rounded-full bg-good" />
            Live: the files in the sandbox as they are now.
          </>
        ) : (
          "As pushed to the session's branch."
        )}
      </p>
      <DiffView diff={diff.data} />
    </Suspense>
  );
}
