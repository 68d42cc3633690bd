// Whether it can be merged, how, and the other ends a pull request can take.
import { problemOf, type MergeMethod, type PullRequest } from "@greenroom/sdk";
import { useState } from "react";
import { usePullRequestCommand } from "../queries.ts";
import { Button } from "../ui/button.tsx";
import { SelectField } from "../ui/field.tsx";
import { Icon } from "../ui/icon.tsx";
import { ProblemNotice } from "../ui/notice.tsx";

const METHODS: Record<MergeMethod, { label: string; button: string }> = {
  merge: { label: "Merge commit", button: "Merge" },
  squash: { label: "Squash into one commit", button: "Squash and merge" },
  rebase: { label: "Rebase onto the base", button: "Rebase and merge" },
};

export function MergeBox({ pullRequest }: { pullRequest: PullRequest }) {
  const command = usePullRequestCommand(pullRequest.repository, pullRequest.number);
  const [method, setMethod] = useState<MergeMethod>("merge");
  const [isDeleting, setDeleting] = useState(true);
  const isOpen = pullRequest.state === "open";
  const canMerge = isOpen && pullRequest.mergeability.status === "clean" && !command.isPending;
  return (
    <section aria-label="Merge" className="grid gap-3 rounded-md border border-line bg-surface p-3">
      <Standing pullRequest={pullRequest} />
      {command.error !== null && <ProblemNotice problem={problemOf(command.error)} />}
      {isOpen && (
        <form
          className="grid gap-2"
          onSubmit={(event) => {
            event.preventDefault();
            command.mutate({
              act: "merge",
              body: {
                method,
                expected_head_commit: pullRequest.head_commit,
                delete_head_branch: isDeleting,
              },
            });
          }}
        >
          <SelectField
            label="Method"
            value={method}
            onChange={(event) => {
              setMethod(event.target.value as MergeMethod);
            }}
          >
            {Object.entries(METHODS).map(([value, { label }]) => (
              <option key={value} value={value}>
                {label}
              </option>
            ))}
          </SelectField>
          <label className="flex min-h-6 items-center gap-2 text-[13px]">
            <input
              type="checkbox"
              className="size-4 accent-accent"
              checked={isDeleting}
              onChange={(event) => {
                setDeleting(event.target.checked);
              }}
            />
            Delete the branch afterwards
          </label>
          <Button type="submit" look="primary" disabled={!canMerge}>
            <Icon name="merge" />
            {METHODS[method].button}
          </Button>
        </form>
      )}
      <div className="flex flex-wrap gap-2 empty:hidden">
        {isOpen && (
          <Button
            look="danger"
            disabled={command.isPending}
            onClick={() => {
              command.mutate({ act: "close" });
            }}
          >
            Close
          </Button>
        )}
        {pullRequest.state === "closed" && (
          <Button
            disabled={command.isPending || pullRequest.is_head_branch_deleted}
            onClick={() => {
              command.mutate({ act: "reopen" });
            }}
          >
            Reopen
          </Button>
        )}
        {!isOpen && !pullRequest.is_head_branch_deleted && (
          <Button
            look="danger"
            disabled={command.isPending}
            onClick={() => {
              command.mutate({ act: "delete_branch" });
            }}
          >
            Delete branch
          </Button>
        )}
      </div>
    </section>
  );
}

function Standing({ pullRequest }: { pullRequest: PullRequest }) {
  const { state, merge, mergeability } = pullRequest;
  if (state === "merged") {
    return (
      <p className="flex items-start gap-2 text-[13px]">
        <Icon name="merge" className="mt-0.5 text-merged" />
        <span>
          Merged{merge != null && ` by ${merge.by.name}`} into{" "}
          <code className="font-mono text-xs">{pullRequest.base_branch}</code>
          {merge != null && (
            <>
              {" "}
              as <code className="font-mono text-xs">{merge.commit.slice(0, 7)}</code>
            </>
          )}
          {pullRequest.is_head_branch_deleted && <span className="text-muted"> · branch deleted</span>}
        </span>
      </p>
    );
  }
  if (state === "closed") {
    return (
      <p className="flex items-center gap-2 text-[13px]">
        <Icon name="close" className="text-bad" />
        Closed without merging
        {pullRequest.is_head_branch_deleted && <span className="text-muted">· branch deleted</span>}
      </p>
    );
  }
  switch (mergeability.status) {
    case "clean":
      return (
        <p className="flex items-center gap-2 text-[13px]">
          <Icon name="check" className="text-good" />
          Merges without conflicts
        </p>
      );
    case "conflicting":
      return (
        <div className="text-[13px]">
          <p className="flex items-center gap-2 font-medium text-warn">
            <Icon name="alert" />
            Conflicts with {pullRequest.base_branch}
          </p>
          <ul className="mt-1 grid gap-0.5 pl-6 font-mono text-xs break-all">
            {mergeability.paths.map((path) => (
              <li key={path}>{path}</li>
            ))}
          </ul>
          <p className="mt-1 pl-6 text-xs text-muted">
            Ask the session to bring in the base branch, then merge.
          </p>
        </div>
      );
    case "nothing_to_merge":
      return <p className="text-[13px] text-muted">The branch adds nothing to its base.</p>;
    default:
      return <p className="text-[13px] text-muted">A branch of it is gone.</p>;
  }
}
