// A tool call: one compact row; opens to its input and output. Output of a running call follows live.
import type { ItemView, ToolCallItem, ToolCallStatus } from "@greenroom/sdk";
import { useState } from "react";
import { Icon, type IconName } from "../ui/icon.tsx";
import { formatDuration, useNow } from "../ui/time.ts";
import { plainOutput } from "./ansi.ts";

const ICONS: Record<string, IconName> = {
  apply_patch: "pencil",
  bash: "terminal",
  edit: "pencil",
  glob: "search",
  grep: "search",
  list: "search",
  open_pr: "pull_request",
  read: "file",
  write: "pencil",
};

const STATUS: Record<ToolCallStatus, { label: string; look: string }> = {
  running: { label: "running", look: "text-muted" },
  succeeded: { label: "done", look: "text-muted" },
  failed: { label: "failed", look: "text-bad" },
  interrupted: { label: "interrupted", look: "text-warn" },
};

export function ToolCall({ view, call }: { view: ItemView; call: ToolCallItem }) {
  const [isOpen, setOpen] = useState(false);
  const isWriting = view.progress === "provisional";
  const status: ToolCallStatus =
    view.progress === "interrupted" && call.status === "running" ? "interrupted" : call.status;
  const output = isOpen || status === "running" ? plainOutput(view.output.text) : "";
  const label = call.tool === "" ? "Preparing a tool call" : call.tool;
  return (
    <div className="overflow-hidden rounded-md border border-line bg-surface">
      <button
        type="button"
        aria-expanded={isOpen}
        onClick={() => {
          setOpen(!isOpen);
        }}
        className="flex w-full items-center gap-2 px-2.5 py-1.5 text-left text-[13px] hover:bg-hover focus-visible:-outline-offset-2"
      >
        <Icon name={ICONS[call.tool] ?? "spark"} className="text-muted" />
        <span className="shrink-0 font-medium">{label}</span>
        <span className="min-w-0 flex-1 truncate font-mono text-xs text-muted">{call.summary}</span>
        <span className={`flex shrink-0 items-center gap-1.5 text-xs ${STATUS[status].look}`}>
          {status === "running" && (
            <span className="size-2 rounded-full bg-accent pulse-dot" aria-hidden="true" />
          )}
          {status === "failed" && <Icon name="alert" className="size-3.5" />}
          <span className={status === "succeeded" ? "sr-only" : ""}>{STATUS[status].label}</span>
          {status === "running" && view.startedAtMs !== null ? (
            <Elapsed sinceMs={view.startedAtMs} />
          ) : (
            call.duration_ms != null && (
              <span className="tabular-nums">{formatDuration(call.duration_ms)}</span>
            )
          )}
        </span>
        <Icon
          name="chevron"
          className={`size-3.5 text-faint transition-transform ${isOpen ? "rotate-90" : ""}`}
        />
      </button>
      {isOpen && (
        <div className="border-t border-line">
          <Block title="Input" text={isWriting ? view.input.text : inputText(call.input)} />
          <Block title="Output" text={output === "" ? "(nothing)" : output} />
        </div>
      )}
      {!isOpen && status === "running" && output !== "" && (
        <pre className="max-h-28 overflow-hidden border-t border-line bg-sunken px-3 py-1.5 font-mono text-xs leading-5 text-muted">
          {output.trimEnd().split("\n").slice(-5).join("\n")}
        </pre>
      )}
    </div>
  );
}

function Elapsed({ sinceMs }: { sinceMs: number }) {
  const now = useNow(1_000);
  const seconds = Math.max(0, Math.floor((now - sinceMs) / 1000));
  return seconds < 2 ? null : <span className="tabular-nums">{seconds} s</span>;
}

function Block({ title, text }: { title: string; text: string }) {
  return (
    <div className="border-line not-first:border-t">
      <p className="px-3 pt-1.5 text-xs text-muted">{title}</p>
      <pre
        tabIndex={0}
        role="region"
        aria-label={title}
        className="max-h-96 overflow-auto px-3 pt-0.5 pb-2 font-mono text-xs leading-5 whitespace-pre-wrap"
      >
        {text}
      </pre>
    </div>
  );
}

/** A call with one argument shows it alone; others show as JSON. */
function inputText(input: unknown): string {
  if (typeof input === "string") return input;
  if (typeof input === "object" && input !== null) {
    const values: unknown[] = Object.values(input);
    if (values.length === 1 && typeof values[0] === "string") return values[0];
  }
  return JSON.stringify(input, null, 2);
}
