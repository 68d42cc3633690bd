// Reviews and remarks on the whole, oldest first, and the form to add one.
import { problemOf, type Comment, type PullRequest, type Review, type ReviewVerdict } from "@greenroom/sdk";
import { useState, type ReactNode } from "react";
import { LazyMarkdown } from "../markdown/lazy-markdown.tsx";
import { useMe, usePullRequestCommand } from "../queries.ts";
import { Avatar, Badge, type Tone } from "../ui/badge.tsx";
import { Button } from "../ui/button.tsx";
import { TextArea } from "../ui/field.tsx";
import { ProblemNotice } from "../ui/notice.tsx";
import { formatAgo, useNow } from "../ui/time.ts";

const VERDICTS: Record<ReviewVerdict, { label: string; tone: Tone }> = {
  approve: { label: "approved", tone: "good" },
  request_changes: { label: "requested changes", tone: "bad" },
  comment: { label: "reviewed", tone: "neutral" },
};

export function Conversation({ pullRequest }: { pullRequest: PullRequest }) {
  const remarks = [
    ...pullRequest.reviews.map((review) => ({ at: review.at_ms, review })),
    ...pullRequest.comments
      .filter((comment) => comment.position == null)
      .map((comment) => ({ at: comment.at_ms, comment })),
  ].sort((first, second) => first.at - second.at);
  return (
    <>
      {remarks.map((remark) =>
        "review" in remark ? (
          <ReviewCard
            key={`review-${String(remark.review.id)}`}
            review={remark.review}
            head={pullRequest.head_commit}
          />
        ) : (
          <CommentCard key={`comment-${String(remark.comment.id)}`} comment={remark.comment} />
        ),
      )}
      <ReviewForm pullRequest={pullRequest} />
    </>
  );
}

function ReviewCard({ review, head }: { review: Review; head: string }) {
  const verdict = VERDICTS[review.verdict];
  return (
    <Card
      remark={review}
      mark={
        <>
          <Badge tone={verdict.tone}>{verdict.label}</Badge>
          {review.commit !== head && <Badge>older commit</Badge>}
        </>
      }
    />
  );
}

export function CommentCard({ comment }: { comment: Comment }) {
  return <Card remark={comment} mark={null} />;
}

function Card({ remark, mark }: { remark: Comment | Review; mark: ReactNode }) {
  const now = useNow(30_000);
  return (
    <article
      aria-label={`Remark by ${remark.author.name}`}
      className="rounded-md border border-line bg-surface"
    >
      <header className="flex flex-wrap items-center gap-2 px-3 py-2 text-[13px]">
        <Avatar person={remark.author} />
        <span className="font-medium">{remark.author.name}</span>
        {mark}
        <time className="text-xs text-muted" dateTime={new Date(remark.at_ms).toISOString()}>
          {formatAgo(remark.at_ms, now)}
        </time>
      </header>
      {remark.body !== "" && (
        <div className="border-t border-line px-3 py-2">
          <LazyMarkdown text={remark.body} />
        </div>
      )}
    </article>
  );
}

function ReviewForm({ pullRequest }: { pullRequest: PullRequest }) {
  const me = useMe();
  const command = usePullRequestCommand(pullRequest.repository, pullRequest.number);
  const [body, setBody] = useState("");
  const isMine =
    me.data !== undefined &&
    [pullRequest.author, ...pullRequest.prompted_by].some(
      (person) => person.id === me.data.id,
    );
  const isOpen = pullRequest.state === "open";
  const clear = {
    onSuccess: () => {
      setBody("");
    },
  };
  const review = (verdict: ReviewVerdict) => {
    command.mutate({ act: "review", body: { verdict, body } }, clear);
  };
  const isEmpty = body.trim() === "";
  return (
    <section aria-label="Your review" className="grid gap-2">
      <TextArea
        label="Review"
        placeholder="What should the author know? Markdown works."
        rows={3}
        value={body}
        onChange={(event) => {
          setBody(event.target.value);
        }}
      />
      {command.error !== null && <ProblemNotice problem={problemOf(command.error)} />}
      <div className="flex flex-wrap items-center justify-end gap-2">
        {isOpen && isMine && (
          <p className="flex-1 text-xs text-muted">
            You asked for this change, so somebody else must approve it.
          </p>
        )}
        <Button
          disabled={isEmpty || command.isPending}
          onClick={() => {
            command.mutate({ act: "comment", body: { body } }, clear);
          }}
        >
          Comment
        </Button>
        {isOpen && (
          <>
            <Button
              look="danger"
              disabled={isEmpty || command.isPending}
              onClick={() => {
                review("request_changes");
              }}
            >
              Request changes
            </Button>
            <Button
              disabled={isMine || command.isPending}
              onClick={() => {
                review("approve");
              }}
            >
              Approve
            </Button>
          </>
        )}
      </div>
    </section>
  );
}
