// One pull request: what it says, what it changes, what people think of it, and whether it gets merged.
import { problemOf, type PullRequest } from "@greenroom/sdk";
import { getRouteApi, Link } from "@tanstack/react-router";
import { usePageTitle } from "../layout/page-title.ts";
import { LazyMarkdown } from "../markdown/lazy-markdown.tsx";
import { Conversation } from "../pull-request/conversation.tsx";
import { MergeBox } from "../pull-request/merge-box.tsx";
import { ReviewedDiff } from "../pull-request/reviewed-diff.tsx";
import { usePullRequest, usePullRequestCommits } from "../queries.ts";
import { Avatar, PullRequestBadge } from "../ui/badge.tsx";
import { buttonClass } from "../ui/button.tsx";
import { Icon } from "../ui/icon.tsx";
import { EmptyState, ProblemNotice, SkeletonRows } from "../ui/notice.tsx";
import { formatAgo, useNow } from "../ui/time.ts";

const route = getRouteApi("/app/repositories/$repository/pull-requests/$number");

export function PullRequestPage() {
  const { repository, number } = route.useParams();
  const pullRequest = usePullRequest(repository, Number(number));
  usePageTitle(pullRequest.data === undefined ? "" : pullRequest.data.title);
  if (pullRequest.data !== undefined) return <Loaded pullRequest={pullRequest.data} />;
  if (pullRequest.error === null) return <SkeletonRows count={6} />;
  return (
    <EmptyState
      icon="search"
      title="This pull request cannot be shown"
      action={
        <Link to="/pull-requests" className={buttonClass("primary")}>
          Go to pull requests
        </Link>
      }
    >
      <ProblemNotice problem={problemOf(pullRequest.error)} />
    </EmptyState>
  );
}

function Loaded({ pullRequest }: { pullRequest: PullRequest }) {
  return (
    <div className="mx-auto grid w-full max-w-6xl min-w-0 gap-6 px-3 py-5 sm:px-6">
      <Head pullRequest={pullRequest} />
      <div className="grid min-w-0 gap-6 lg:grid-cols-[minmax(0,1fr)_20rem]">
        <div className="grid min-w-0 content-start gap-4">
          <section aria-label="Description" className="rounded-md border border-line bg-surface px-4 py-3">
            {pullRequest.body === "" ? (
              <p className="text-muted">No description.</p>
            ) : (
              <LazyMarkdown text={pullRequest.body} />
            )}
          </section>
          <Conversation pullRequest={pullRequest} />
        </div>
        <div className="grid min-w-0 content-start gap-4">
          <MergeBox pullRequest={pullRequest} />
          <Commits pullRequest={pullRequest} />
        </div>
      </div>
      <section aria-labelledby="changes-title" className="grid min-w-0 gap-3">
        <h2 id="changes-title" className="text-base font-semibold">
          Changes
        </h2>
        <ReviewedDiff pullRequest={pullRequest} />
      </section>
    </div>
  );
}

function Head({ pullRequest }: { pullRequest: PullRequest }) {
  const now = useNow(30_000);
  return (
    <div className="grid gap-2">
      <h1 className="text-lg leading-6 font-semibold">
        {pullRequest.title}{" "}
        <span className="font-normal text-muted">#{pullRequest.number}</span>
      </h1>
      <div className="flex flex-wrap items-center gap-x-3 gap-y-1.5 text-[13px] text-muted">
        <PullRequestBadge state={pullRequest.state} />
        <span className="inline-flex items-center gap-1.5">
          <Avatar person={pullRequest.author} />
          {pullRequest.author.name}
        </span>
        <span className="inline-flex min-w-0 flex-wrap items-center gap-1">
          <Icon name="branch" className="size-3.5" />
          <span className="font-mono text-xs break-all">{pullRequest.head_branch}</span>
          <span>into</span>
          <span className="font-mono text-xs">{pullRequest.base_branch}</span>
        </span>
        <span>{pullRequest.repository}</span>
        <time dateTime={new Date(pullRequest.created_at_ms).toISOString()}>
          {formatAgo(pullRequest.created_at_ms, now)}
        </time>
        {pullRequest.session != null && (
          <Link
            to="/sessions/$sessionId"
            params={{ sessionId: pullRequest.session }}
            className="inline-flex items-center gap-1 font-medium text-accent hover:underline"
          >
            <Icon name="sessions" className="size-3.5" />
            Open session
          </Link>
        )}
      </div>
    </div>
  );
}

function Commits({ pullRequest }: { pullRequest: PullRequest }) {
  const { repository, number, head_commit } = pullRequest;
  const commits = usePullRequestCommits(repository, number, head_commit);
  return (
    <section aria-labelledby="commits-title" className="rounded-md border border-line bg-surface">
      <h2 id="commits-title" className="border-b border-line px-3 py-2 text-[13px] font-semibold">
        Commits
      </h2>
      {commits.isPending && <SkeletonRows count={1} />}
      {commits.error !== null && (
        <div className="p-2">
          <ProblemNotice problem={problemOf(commits.error)} />
        </div>
      )}
      <ul className="divide-y divide-line">
        {(commits.data ?? []).map((commit) => (
          <li key={commit.id} className="px-3 py-2 text-[13px]">
            <p className="truncate" title={commit.message}>
              {commit.message.split("\n")[0]}
            </p>
            <p className="text-xs text-muted">
              <code className="font-mono">{commit.id.slice(0, 7)}</code> · {commit.author_name}
            </p>
          </li>
        ))}
      </ul>
    </section>
  );
}
