// Pull requests of all repositories, by state.
import { problemOf, type PullRequest } from "@greenroom/sdk";
import { getRouteApi, Link } from "@tanstack/react-router";
import { usePageTitle } from "../layout/page-title.ts";
import { usePullRequests } from "../queries.ts";
import { PullRequestBadge } from "../ui/badge.tsx";
import { Icon } from "../ui/icon.tsx";
import { EmptyState, ProblemNotice, SkeletonRows } from "../ui/notice.tsx";
import { formatAgo, useNow } from "../ui/time.ts";

const route = getRouteApi("/app/pull-requests");
const STATES = [
  { search: {}, state: "open", label: "Open" },
  { search: { state: "merged" }, state: "merged", label: "Merged" },
  { search: { state: "closed" }, state: "closed", label: "Closed" },
] as const;

export function PullRequestsPage() {
  usePageTitle("Pull requests");
  const { state = "open" } = route.useSearch();
  const pullRequests = usePullRequests(state);
  const now = useNow(15_000);
  return (
    <div className="mx-auto w-full max-w-5xl px-3 py-6 sm:px-6">
      <div className="mb-3 flex flex-wrap items-center justify-between gap-3">
        <h1 className="text-lg font-semibold">Pull requests</h1>
        <nav aria-label="State" className="flex rounded-md border border-line bg-surface p-0.5">
          {STATES.map((entry) => (
            <Link
              key={entry.state}
              to="/pull-requests"
              search={entry.search}
              aria-current={entry.state === state ? "page" : undefined}
              className={`rounded px-2.5 py-1 text-[13px] font-medium ${entry.state === state ? "bg-hover text-text" : "text-muted hover:text-text"}`}
            >
              {entry.label}
            </Link>
          ))}
        </nav>
      </div>
      {pullRequests.error !== null && (
        <div className="mb-3">
          <ProblemNotice
            problem={problemOf(pullRequests.error)}
            title="Pull requests could not be loaded"
          />
        </div>
      )}
      <div className="overflow-hidden rounded-lg border border-line bg-surface">
        {pullRequests.isPending && <SkeletonRows count={4} />}
        {pullRequests.data?.length === 0 && (
          <EmptyState icon="pull_request" title={`No ${state} pull requests`}>
            {state === "open"
              ? "When an agent finishes its work it opens a pull request, and it waits here for review."
              : `Pull requests that were ${state} are listed here.`}
          </EmptyState>
        )}
        {pullRequests.data !== undefined && pullRequests.data.length > 0 && (
          <ul className="divide-y divide-line">
            {pullRequests.data.map((pullRequest) => (
              <Row
                key={`${pullRequest.repository}/${String(pullRequest.number)}`}
                pullRequest={pullRequest}
                now={now}
              />
            ))}
          </ul>
        )}
      </div>
    </div>
  );
}

function Row({ pullRequest, now }: { pullRequest: PullRequest; now: number }) {
  return (
    <li className="relative flex items-center gap-4 px-4 py-2.5 hover:bg-hover">
      <div className="min-w-0 flex-1">
        <Link
          to="/repositories/$repository/pull-requests/$number"
          params={{ repository: pullRequest.repository, number: String(pullRequest.number) }}
          className="block truncate font-medium after:absolute after:inset-0 focus-visible:outline-none focus-visible:after:outline-2 focus-visible:after:-outline-offset-2 focus-visible:after:outline-accent"
        >
          {pullRequest.title}
        </Link>
        <p className="mt-0.5 truncate text-xs text-muted">
          {pullRequest.repository} · {pullRequest.author.name} · {pullRequest.head_branch}
        </p>
      </div>
      {pullRequest.mergeability.status === "conflicting" && (
        <Icon name="alert" className="text-warn" />
      )}
      <PullRequestBadge state={pullRequest.state} number={pullRequest.number} />
      <time
        dateTime={new Date(pullRequest.updated_at_ms).toISOString()}
        className="w-12 text-right text-xs text-muted tabular-nums"
      >
        {formatAgo(pullRequest.updated_at_ms, now)}
      </time>
    </li>
  );
}
