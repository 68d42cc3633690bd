// One session: its head, its transcript or its changes, and where the next prompt is written.
import { problemOf, type SessionView } from "@greenroom/sdk";
import { getRouteApi, Link } from "@tanstack/react-router";
import { Tabs } from "radix-ui";
import { lazy, Suspense, useRef, useState } from "react";
import { usePageTitle } from "../layout/page-title.ts";
import { useSession, useSessionDiff } from "../queries.ts";
import { Composer } from "../session/composer.tsx";
import { ConnectionLine } from "../session/connection-line.tsx";
import { ForkDialog } from "../session/fork-dialog.tsx";
import { useSessionStream } from "../session/session-store.ts";
import { jumpToEnd, useStickToBottom } from "../session/stick-to-bottom.ts";
import { Transcript } from "../session/transcript.tsx";
import {
  LineCounts,
  PullRequestBadge,
  ScriptedBadge,
  ServiceMark,
  SessionStateMark,
} from "../ui/badge.tsx";
import { Button, buttonClass } from "../ui/button.tsx";
import { Icon } from "../ui/icon.tsx";
import { EmptyState, ProblemNotice, SkeletonRows } from "../ui/notice.tsx";

const DiffView = lazy(async () => ({ default: (await import("../diff/diff-view.tsx")).DiffView }));
const route = getRouteApi("/app/sessions/$sessionId");

export function SessionPage() {
  const { sessionId } = route.useParams();
  const session = useSession(sessionId);
  if (session.error !== null && session.data === undefined) {
    return (
      <EmptyState
        icon="search"
        title="This session cannot be shown"
        action={
          <Link to="/" className={buttonClass("primary")}>
            Go to sessions
          </Link>
        }
      >
        <ProblemNotice problem={problemOf(session.error)} />
      </EmptyState>
    );
  }
  // Another address is another session: nothing of the old one may stay.
  return <FollowedSession key={sessionId} sessionId={sessionId} />;
}

const TAB =
  "-mb-px flex h-9 items-center gap-2 border-b-2 border-transparent px-1 text-[13px] font-medium text-muted hover:text-text data-[state=active]:border-accent data-[state=active]:text-text";

function FollowedSession({ sessionId }: { sessionId: string }) {
  const { view, connection } = useSessionStream(sessionId);
  const [tab, setTab] = useState("transcript");
  const content = useRef<HTMLDivElement>(null);
  const isAtEnd = useStickToBottom(content);
  usePageTitle(view.title);
  return (
    <Tabs.Root value={tab} onValueChange={setTab} className="flex flex-1 flex-col">
      <SessionHead view={view} />
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
          </Tabs.Trigger>
          </Tabs.List>
          <div className="ml-auto flex max-w-full items-center gap-3">
            <Standing view={view} />
            <ForkButton sessionId={sessionId} isReady={view.lastSeq > 0} />
          </div>
        </div>
      </div>
      <Tabs.Content value="transcript" className="flex flex-1 flex-col" tabIndex={-1}>
        <div ref={content} className="mx-auto w-full max-w-4xl flex-1 px-3 py-5 sm:px-6">
          {view.lastSeq === 0 ? (
            <SkeletonRows count={4} />
          ) : view.turns.length === 0 && view.prompts.length === 0 ? (
            <EmptyState icon="sessions" title="Waiting for a prompt">
              Say what should change. The agent starts at once.
            </EmptyState>
          ) : (
            <Transcript view={view} />
          )}
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
            <ConnectionLine connection={connection} />
            <Composer sessionId={sessionId} view={view} />
          </div>
        </div>
      </Tabs.Content>
      <Tabs.Content value="changes" className="flex-1" tabIndex={-1}>
        <div className="mx-auto w-full max-w-6xl px-3 py-5 sm:px-6">
          <Changes sessionId={sessionId} view={view} />
        </div>
      </Tabs.Content>
    </Tabs.Root>
  );
}

function ForkButton({ sessionId, isReady }: { sessionId: string; isReady: boolean }) {
  const [isOpen, setOpen] = useState(false);
  return (
    <>
      <Button
        look="quiet"
        className="-mr-2 px-2"
        disabled={!isReady}
        onClick={() => {
          setOpen(true);
        }}
      >
        <Icon name="branch" />
        <span className="max-sm:sr-only">Fork</span>
      </Button>
      <ForkDialog
        sessionId={sessionId}
        isOpen={isOpen}
        onClose={() => {
          setOpen(false);
        }}
      />
    </>
  );
}

/** What must stay in sight while the transcript scrolls. */
function Standing({ view }: { view: SessionView }) {
  const isFailed = view.turns.at(-1)?.outcome?.result === "failed";
  return (
    <div className="flex min-w-0 flex-wrap items-center justify-end gap-2 py-1">
      {view.pullRequests.map((link) => (
        <Link
          key={`${link.repository}/${String(link.number)}`}
          to="/repositories/$repository/pull-requests/$number"
          params={{ repository: link.repository, number: String(link.number) }}
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

function SessionHead({ view }: { view: SessionView }) {
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
        {view.forkedFrom !== null && (
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

function Changes({ sessionId, view }: { sessionId: string; view: SessionView }) {
  const commits = view.changes.map((change) => change.commit);
  const diff = useSessionDiff(sessionId, commits.length === 0 ? null : commits.join(" "));
  if (commits.length === 0) {
    return (
      <EmptyState icon="file" title="No changes yet">
        What the agent changes appears here when a turn ends and its commits reach the branch.
      </EmptyState>
    );
  }
  if (diff.error !== null) {
    return <ProblemNotice problem={problemOf(diff.error)} title="The diff could not be loaded" />;
  }
  if (diff.data === undefined) return <SkeletonRows count={4} />;
  return (
    <Suspense fallback={<SkeletonRows count={4} />}>
      <h2 className="sr-only">Changes</h2>
      <DiffView diff={diff.data} />
    </Suspense>
  );
}
