// Who did what on this server, for its owners.
import { problemOf, type AuditEntry } from "@greenroom/sdk";
import { getRouteApi, Link, useNavigate } from "@tanstack/react-router";
import { usePageTitle } from "../layout/page-title.ts";
import { useAudit } from "../queries.ts";
import { Avatar, Badge } from "../ui/badge.tsx";
import { Button } from "../ui/button.tsx";
import { TextField } from "../ui/field.tsx";
import { EmptyState, ProblemNotice, SkeletonRows } from "../ui/notice.tsx";

const route = getRouteApi("/app/audit");

export function AuditPage() {
  usePageTitle("Who did what");
  const { about = "" } = route.useSearch();
  const navigate = useNavigate();
  const audit = useAudit(about);
  const entries = audit.data?.pages.flatMap((page) => page.entries) ?? [];
  return (
    <div className="mx-auto grid w-full max-w-4xl content-start gap-5 px-3 py-5 sm:px-6">
      <div>
        <h1 className="text-lg font-semibold">Who did what</h1>
        <p className="mt-0.5 text-[13px] text-muted">
          Every command that somebody gave, the newest first. Prompts are in their sessions.
        </p>
      </div>
      <TextField
        label="About"
        value={about}
        placeholder="ses_…, usr_…, or a repository"
        onChange={(event) => {
          const text = event.target.value.trim();
          void navigate({ to: "/audit", search: text === "" ? {} : { about: text }, replace: true });
        }}
      />
      {audit.error !== null && <ProblemNotice problem={problemOf(audit.error)} />}
      {audit.data === undefined && audit.error === null && <SkeletonRows count={6} />}
      {audit.data !== undefined && entries.length === 0 && (
        <EmptyState icon="search" title="Nothing is written down">
          {about === "" ? "Nobody has given a command yet." : "Nothing names this."}
        </EmptyState>
      )}
      {entries.length > 0 && (
        <ol className="divide-y divide-line rounded-lg border border-line bg-surface">
          {entries.map((entry) => (
            <Entry key={entry.id} entry={entry} />
          ))}
        </ol>
      )}
      {audit.hasNextPage && (
        <div className="text-center">
          <Button
            disabled={audit.isFetchingNextPage}
            onClick={() => {
              void audit.fetchNextPage();
            }}
          >
            Show earlier
          </Button>
        </div>
      )}
    </div>
  );
}

function Entry({ entry }: { entry: AuditEntry }) {
  const at = new Date(entry.at_ms);
  return (
    <li className="flex gap-3 px-3 py-2.5 text-[13px] sm:px-4">
      <Avatar person={entry.person} />
      <div className="min-w-0 flex-1">
        <p className="flex flex-wrap items-center gap-x-2 gap-y-1">
          <span className="font-medium">{entry.person.name}</span>
          <span>{words(entry.action)}</span>
          <Answer status={entry.status ?? null} />
        </p>
        <p className="font-mono text-xs break-all text-muted">
          <Named text={entry.target} />
          {entry.subject != null && (
            <>
              {" → "}
              <Named text={entry.subject} />
            </>
          )}
        </p>
      </div>
      <time dateTime={at.toISOString()} className="text-right text-xs whitespace-nowrap text-muted">
        {at.toLocaleDateString(undefined, { month: "short", day: "numeric" })}
        <br />
        {at.toLocaleTimeString(undefined, { hour: "2-digit", minute: "2-digit", second: "2-digit" })}
      </time>
    </li>
  );
}

/** A path with its sessions as links. */
function Named({ text }: { text: string }) {
  return text.split(/(ses_[0-9a-z]{26})/u).map((part, index) =>
    part.startsWith("ses_") ? (
      <Link
        key={index}
        to="/sessions/$sessionId"
        params={{ sessionId: part }}
        className="underline underline-offset-2 hover:text-text"
      >
        {part}
      </Link>
    ) : (
      part
    ),
  );
}

function Answer({ status }: { status: number | null }) {
  if (status === null) return <Badge tone="warn">outcome unknown</Badge>;
  if (status >= 400) return <Badge tone="bad">refused {status}</Badge>;
  return null;
}

/** `createLink` as "create link". */
function words(action: string): string {
  return action.replaceAll(/[A-Z]/gu, (letter) => ` ${letter.toLowerCase()}`);
}
