// The pull request's diff with the remarks on its lines.
import { problemOf, type LinePosition, type PullRequest } from "@greenroom/sdk";
import { lazy, Suspense, useState } from "react";
import { usePullRequestCommand, usePullRequestDiff } from "../queries.ts";
import { Button } from "../ui/button.tsx";
import { TextArea } from "../ui/field.tsx";
import { ProblemNotice, SkeletonRows } from "../ui/notice.tsx";
import { CommentCard } from "./conversation.tsx";

const DiffView = lazy(async () => ({ default: (await import("../diff/diff-view.tsx")).DiffView }));

export function ReviewedDiff({ pullRequest }: { pullRequest: PullRequest }) {
  const { repository, number, head_commit, comments } = pullRequest;
  const diff = usePullRequestDiff(repository, number, head_commit);
  const [position, setPosition] = useState<LinePosition | null>(null);
  if (diff.error !== null) {
    return <ProblemNotice problem={problemOf(diff.error)} title="The diff could not be loaded" />;
  }
  if (diff.data === undefined) return <SkeletonRows count={4} />;
  return (
    <Suspense fallback={<SkeletonRows count={4} />}>
      <DiffView
        diff={diff.data}
        slotsOf={(path) => ({
          onComment: (line) => {
            setPosition({ path, line });
          },
          below: (line) => {
            const here = comments.filter(
              (comment) => comment.position?.path === path && comment.position.line === line,
            );
            const isWriting = position?.path === path && position.line === line;
            if (here.length === 0 && !isWriting) return null;
            return (
              <div className="grid gap-2">
                {here.map((comment) => (
                  <CommentCard key={comment.id} comment={comment} />
                ))}
                {isWriting && (
                  <LineCommentForm
                    pullRequest={pullRequest}
                    position={position}
                    onDone={() => {
                      setPosition(null);
                    }}
                  />
                )}
              </div>
            );
          },
        })}
      />
    </Suspense>
  );
}

function LineCommentForm({
  pullRequest,
  position,
  onDone,
}: {
  pullRequest: PullRequest;
  position: LinePosition;
  onDone: () => void;
}) {
  const command = usePullRequestCommand(pullRequest.repository, pullRequest.number);
  const [body, setBody] = useState("");
  return (
    <form
      className="grid gap-2"
      onSubmit={(event) => {
        event.preventDefault();
        command.mutate({ act: "comment", body: { body, position } }, { onSuccess: onDone });
      }}
    >
      <TextArea
        label={`Comment on line ${String(position.line)} of ${position.path}`}
        rows={2}
        value={body}
        autoFocus
        onChange={(event) => {
          setBody(event.target.value);
        }}
      />
      {command.error !== null && <ProblemNotice problem={problemOf(command.error)} />}
      <div className="flex justify-end gap-2">
        <Button look="quiet" onClick={onDone}>
          Cancel
        </Button>
        <Button
          type="submit"
          look="primary"
          disabled={body.trim() === "" || command.isPending}
        >
          Add comment
        </Button>
      </div>
    </form>
  );
}
