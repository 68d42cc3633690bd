// Images of a repository: which one sessions begin with, how each was built, and its log as it grows.
import { problemOf, type Image, type ImageState, type ImageStep } from "@greenroom/sdk";
import { getRouteApi, Link } from "@tanstack/react-router";
import { useEffect, useRef, useState } from "react";
import { usePageTitle } from "../layout/page-title.ts";
import { isFinalImage, useBuildImage, useImageLog, useImages } from "../queries.ts";
import { Badge, type Tone } from "../ui/badge.tsx";
import { Button } from "../ui/button.tsx";
import { EmptyState, ProblemNotice, SkeletonRows } from "../ui/notice.tsx";
import { formatAgo, formatBytes, formatDuration, useNow } from "../ui/time.ts";

const route = getRouteApi("/app/repositories/$repository/images");

export function ImagesPage() {
  const { repository } = route.useParams();
  usePageTitle(`Images of ${repository}`);
  const images = useImages(repository);
  const build = useBuildImage(repository);
  const [picked, setPicked] = useState("");
  const now = useNow(1_000);
  const listed = images.data?.images ?? [];
  const shown = listed.find((image) => image.id === picked) ?? listed[0];
  const isBuilding = listed.some((image) => !isFinalImage(image.state));
  const ask = (fromScratch: boolean) => {
    build.mutate(fromScratch, {
      onSuccess: (image) => {
        setPicked(image.id);
      },
    });
  };
  const failure = images.error ?? build.error;
  return (
    <div className="mx-auto grid w-full max-w-5xl gap-3 px-3 py-6 sm:px-6">
      <div className="flex flex-wrap items-end justify-between gap-3">
        <div className="min-w-0">
          <p className="text-xs text-muted">
            <Link to="/repositories" className="hover:underline">
              Repositories
            </Link>{" "}
            / {repository}
          </p>
          <h1 className="text-lg font-semibold">Images</h1>
        </div>
        <div className="flex gap-2">
          <Button
            look="quiet"
            disabled={build.isPending || isBuilding}
            onClick={() => {
              ask(true);
            }}
          >
            From scratch
          </Button>
          <Button
            look="primary"
            disabled={build.isPending || isBuilding}
            onClick={() => {
              ask(false);
            }}
          >
            {isBuilding ? "Building…" : "Build image"}
          </Button>
        </div>
      </div>
      {failure !== null && <ProblemNotice problem={problemOf(failure)} />}
      {images.isPending && (
        <div className="overflow-hidden rounded-lg border border-line bg-surface">
          <SkeletonRows count={3} />
        </div>
      )}
      {images.data?.images.length === 0 && (
        <div className="rounded-lg border border-line bg-surface">
          <EmptyState icon="repository" title="No images yet">
            An image holds the repository with everything installed and built, so that sessions begin
            at once. Name a setup, build or warm command in .greenroom/environment.toml, or build one
            by hand.
          </EmptyState>
        </div>
      )}
      {shown !== undefined && (
        <div className="grid items-start gap-3 md:grid-cols-[minmax(0,20rem)_minmax(0,1fr)]">
          <ul className="divide-y divide-line overflow-hidden rounded-lg border border-line bg-surface max-md:max-h-64 max-md:overflow-y-auto">
            {listed.map((image) => (
              <li key={image.id}>
                <button
                  type="button"
                  aria-current={image.id === shown.id}
                  className={`grid w-full gap-1 px-3 py-2.5 text-left hover:bg-sunken ${image.id === shown.id ? "bg-sunken" : ""}`}
                  onClick={() => {
                    setPicked(image.id);
                  }}
                >
                  <span className="flex items-center gap-2">
                    <StateBadge state={image.state} />
                    {images.data?.current === image.id && <Badge tone="info">in use</Badge>}
                    <span className="ml-auto text-xs text-muted">
                      {formatAgo(image.created_at_ms, now)}
                    </span>
                  </span>
                  <span className="flex items-center gap-2 font-mono text-xs text-muted">
                    {image.commit?.slice(0, 10) ?? "no commit yet"}
                    <span className="ml-auto font-sans">{took(image, now)}</span>
                  </span>
                </button>
              </li>
            ))}
          </ul>
          <Details key={shown.id} image={shown} />
        </div>
      )}
    </div>
  );
}

function Details({ image }: { image: Image }) {
  return (
    <section
      aria-label="The image"
      className="min-w-0 overflow-hidden rounded-lg border border-line bg-surface"
    >
      <div className="grid gap-2 border-b border-line px-4 py-3">
        <div className="flex flex-wrap items-center gap-x-3 gap-y-1 text-xs text-muted">
          <StateBadge state={image.state} />
          <span>
            {image.branch}
            {image.commit != null && <span className="font-mono"> {image.commit.slice(0, 10)}</span>}
          </span>
          {image.size_bytes != null && <span>{formatBytes(image.size_bytes)}</span>}
          <span className="wrap-anywhere">{originOf(image)}</span>
          {isNamed(image.base) && (
            <span className="wrap-anywhere">
              over <span className="font-mono">{withoutDigest(image.base)}</span>
            </span>
          )}
          <span className="font-mono">{image.id}</span>
        </div>
        {image.problem != null && <ProblemNotice problem={image.problem} />}
        {image.steps.length > 0 && (
          <ol className="flex flex-wrap gap-1.5">
            {image.steps.map((step) => (
              <li key={step.name}>
                <StepMark step={step} />
              </li>
            ))}
          </ol>
        )}
      </div>
      <Log id={image.id} />
    </section>
  );
}

function originOf(image: Image): string {
  if (image.trigger.kind === "pulled") return `pulled from ${withoutDigest(image.trigger.reference)}`;
  return image.built_on == null ? "from nothing" : "on the image before";
}

/** Whether it is not the server's own programs. */
function isNamed(base: string): boolean {
  return base !== "" && base !== "host";
}

/** As people know it. */
function withoutDigest(name: string): string {
  return name.replace(/^oci:/, "").replace(/@sha256:[0-9a-f]+$/, "");
}

function Log({ id }: { id: string }) {
  const log = useImageLog(id);
  const box = useRef<HTMLPreElement>(null);
  const isAtEnd = useRef(true);
  useEffect(() => {
    if (isAtEnd.current) box.current?.scrollTo({ top: box.current.scrollHeight });
  }, [log.text]);
  return (
    <pre
      ref={box}
      tabIndex={0}
      aria-label="Log"
      className="max-h-[60vh] min-h-32 overflow-auto bg-sunken px-4 py-3 font-mono text-xs leading-5 whitespace-pre-wrap wrap-anywhere"
      onScroll={(event) => {
        const element = event.currentTarget;
        isAtEnd.current = element.scrollTop + element.clientHeight >= element.scrollHeight - 24;
      }}
    >
      {log.text === "" ? (
        <span className="text-muted">{log.isWhole ? "It wrote nothing." : "Nothing yet."}</span>
      ) : (
        log.text.split("\n").map((line, index) => (
          <span key={index} className={lookOf(line)}>
            {line}
            {"\n"}
          </span>
        ))
      )}
    </pre>
  );
}

/** Lines of ours stand out from what programs write. */
function lookOf(line: string): string {
  if (line.startsWith("==> failed: ")) return "font-semibold text-bad";
  return line.startsWith("==> ") ? "font-semibold text-accent" : "";
}

const STATES: Record<ImageState, { tone: Tone; label: string }> = {
  scheduled: { tone: "neutral", label: "Scheduled" },
  cloning: { tone: "info", label: "Cloning" },
  installing: { tone: "info", label: "Installing" },
  building: { tone: "info", label: "Building" },
  testing: { tone: "info", label: "Testing" },
  sealing: { tone: "info", label: "Sealing" },
  published: { tone: "good", label: "Published" },
  failed: { tone: "bad", label: "Failed" },
};

function StateBadge({ state }: { state: ImageState }) {
  const look = STATES[state];
  return <Badge tone={look.tone}>{look.label}</Badge>;
}

const OUTCOMES: Record<ImageStep["outcome"], { tone: Tone; label: string }> = {
  running: { tone: "info", label: "runs" },
  done: { tone: "good", label: "done" },
  cached: { tone: "neutral", label: "cached" },
  failed: { tone: "bad", label: "failed" },
};

function StepMark({ step }: { step: ImageStep }) {
  const look = OUTCOMES[step.outcome];
  return (
    <Badge tone={look.tone}>
      {step.name} {step.outcome === "done" ? formatDuration(step.duration_ms) : look.label}
    </Badge>
  );
}

function took(image: Image, now: number): string {
  return formatDuration(Math.max(0, (image.finished_at_ms ?? now) - image.created_at_ms));
}
