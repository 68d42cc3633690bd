// All sessions, newest activity first.
import { problemOf, type Session } from "@greenroom/sdk";
import { Link } from "@tanstack/react-router";
import { useEffect, useState } from "react";
import { usePageTitle } from "../layout/page-title.ts";
import { useSessions } from "../queries.ts";
import { Badge, PullRequestBadge, SessionStateMark } from "../ui/badge.tsx";
import { Button, buttonClass, IconButton } from "../ui/button.tsx";
import { Icon } from "../ui/icon.tsx";
import { EmptyState, ProblemNotice, SkeletonRows } from "../ui/notice.tsx";
import { formatAgo, useNow } from "../ui/time.ts";

const SETTLE_MS = 200;

export function SessionsPage() {
  usePageTitle("Sessions");
  const [text, setText] = useState("");
  const words = useSettled(text.trim());
  const [isArchived, setArchived] = useState(false);
  const sessions = useSessions(words, isArchived);
  const now = useNow(15_000);
  const rows = sessions.data?.pages.flatMap((page) => page.sessions) ?? [];
  const running = rows.filter((row) => row.state === "running" || row.state === "stopping").length;
  return (
    <div className="mx-auto w-full max-w-5xl px-3 py-6 sm:px-6">
      <div className="mb-3 flex items-center gap-3">
        <h1 className="text-lg font-semibold">{isArchived ? "Archived" : "Sessions"}</h1>
        {running > 0 && <p className="text-[13px] text-muted">{running} running</p>}
        <input
          type="search"
          aria-label="Search sessions"
          placeholder="Search"
          className="ml-auto h-8 w-64 min-w-0 shrink rounded-md border border-line-strong bg-surface px-2.5 text-[13px] max-sm:w-44"
          value={text}
          onChange={(event) => {
            setText(event.target.value);
          }}
        />
        <IconButton
          label="Archived sessions"
          aria-pressed={isArchived}
          className={`-ml-1.5 ${isArchived ? "bg-hover text-text" : ""}`}
          onClick={() => {
            setArchived(!isArchived);
          }}
        >
          <Icon name="archive" />
        </IconButton>
      </div>
      {sessions.error !== null && (
        <div className="mb-3">
          <ProblemNotice problem={problemOf(sessions.error)} title="Sessions could not be loaded" />
        </div>
      )}
      <div className="overflow-hidden rounded-lg border border-line bg-surface">
        {sessions.isPending && <SkeletonRows count={6} />}
        {sessions.isSuccess && rows.length === 0 && words === "" && !isArchived && <NoSessions />}
        {sessions.isSuccess && rows.length === 0 && words === "" && isArchived && (
          <EmptyState icon="archive" title="No archived sessions">
            <p>A session that its owner archives is kept here for reading, and can be taken back.</p>
          </EmptyState>
        )}
        {sessions.isSuccess && rows.length === 0 && words !== "" && (
          <EmptyState icon="search" title="No session has these words">
            <p>Titles and prompts are searched; every word must be in one of them.</p>
          </EmptyState>
        )}
        {rows.length > 0 && (
          <ul className="divide-y divide-line">
            {rows.map((session) => (
              <SessionRow key={session.id} session={session} now={now} />
            ))}
          </ul>
        )}
      </div>
      {sessions.hasNextPage && (
        <div className="mt-3 text-center">
          <Button
            disabled={sessions.isFetchingNextPage}
            onClick={() => void sessions.fetchNextPage()}
          >
            Show older sessions
          </Button>
        </div>
      )}
    </div>
  );
}

/** What it was when nothing changed for a moment: one question for a word, not one for each letter. */
function useSettled(text: string): string {
  const [settled, setSettled] = useState(text);
  useEffect(() => {
    const timer = setTimeout(() => {
      setSettled(text);
    }, SETTLE_MS);
    return () => {
      clearTimeout(timer);
    };
  }, [text]);
  return settled;
}

function SessionRow({ session, now }: { session: Session; now: number }) {
  const isFailed = session.last_error_code != null;
  return (
    <li className="relative flex items-center gap-4 px-4 py-2.5 hover:bg-hover">
      <div className="min-w-0 flex-1">
        <Link
          to="/sessions/$sessionId"
          params={{ sessionId: session.id }}
          className="block truncate font-medium after:absolute after:inset-0 focus-visible:outline-none focus-visible:after:outline-2 focus-visible:after:-outline-offset-2 focus-visible:after:outline-accent"
        >
          {session.title}
        </Link>
        <p className="mt-0.5 flex items-center gap-2 overflow-hidden text-xs text-muted">
          <span className="w-[4.5rem] shrink-0">
            <SessionStateMark state={session.state} isFailed={isFailed} />
          </span>
          <span className="inline-flex min-w-0 items-center gap-1">
            <Icon name="repository" className="size-3.5" />
            <span className="truncate">{session.repository}</span>
          </span>
          {session.forked_from != null && (
            <span className="inline-flex shrink-0 items-center gap-1">
              <Icon name="branch" className="size-3.5" />
              fork
            </span>
          )}
          <span className="truncate max-sm:hidden">{session.created_by.name}</span>
        </p>
      </div>
      <div className="flex shrink-0 items-center gap-2 max-sm:max-w-[45%] max-sm:flex-wrap max-sm:justify-end">
        {session.is_scripted && (
          <span className="max-sm:hidden">
            <Badge>scripted demo model</Badge>
          </span>
        )}
        {session.pull_requests.map((link) => (
          <PullRequestBadge
            key={`${link.repository}/${String(link.number)}`}
            state={link.state}
            number={link.number}
            {...(link.repository !== session.repository && { repository: link.repository })}
          />
        ))}
        <time
          dateTime={new Date(session.updated_at_ms).toISOString()}
          title={new Date(session.updated_at_ms).toLocaleString()}
          className="w-12 text-right text-xs text-muted tabular-nums"
        >
          {formatAgo(session.updated_at_ms, now)}
        </time>
      </div>
    </li>
  );
}

function NoSessions() {
  return (
    <EmptyState
      icon="sessions"
      title="No sessions yet"
      action={
        <Link to="/new" className={buttonClass("primary")}>
          <Icon name="plus" />
          Start the first session
        </Link>
      }
    >
      <p>
        A session is one piece of work: you say what should change, an agent does it in a sandbox,
        and you review the pull request it opens.
      </p>
    </EmptyState>
  );
}
