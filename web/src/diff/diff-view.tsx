// All files of a diff: an overview to jump from, then each file, collapsible.
import type { Diff, FileDiff } from "@greenroom/sdk";
import { useState, type ReactNode } from "react";
import { Badge, LineCounts } from "../ui/badge.tsx";
import { Icon } from "../ui/icon.tsx";
import { EmptyState, ProblemNotice } from "../ui/notice.tsx";
import { PatchTable, type LineSlots } from "./patch-table.tsx";

const STATUS = {
  added: { tone: "good", label: "added" },
  modified: { tone: "neutral", label: "modified" },
  deleted: { tone: "bad", label: "deleted" },
  renamed: { tone: "info", label: "renamed" },
} as const;

/** Files with more changed lines than this start collapsed. */
const COLLAPSE_OVER_LINES = 600;

export function DiffView({
  diff,
  slotsOf,
}: {
  diff: Diff;
  slotsOf?: (path: string) => LineSlots;
}) {
  if (diff.files.length === 0) {
    return (
      <EmptyState icon="file" title="No changes">
        The branch holds the same files as its base.
      </EmptyState>
    );
  }
  return (
    <div className="grid min-w-0 gap-3">
      <div className="flex flex-wrap items-center gap-x-3 gap-y-1 text-[13px]">
        <span className="font-medium">
          {diff.files.length} {diff.files.length === 1 ? "file" : "files"} changed
        </span>
        <LineCounts additions={diff.additions} deletions={diff.deletions} />
      </div>
      {diff.files.length > 1 && (
        <nav aria-label="Changed files" className="rounded-md border border-line bg-surface py-1">
          <ul>
            {diff.files.map((file) => (
              <li key={file.path}>
                <a
                  href={`#${fileAnchor(file.path)}`}
                  className="flex items-center gap-2 px-3 py-1 text-xs hover:bg-hover"
                >
                  <Icon name="file" className="size-3.5 text-muted" />
                  <span className="min-w-0 flex-1 truncate font-mono">{file.path}</span>
                  {!file.is_binary && (
                    <LineCounts additions={file.additions} deletions={file.deletions} />
                  )}
                </a>
              </li>
            ))}
          </ul>
        </nav>
      )}
      {diff.is_truncated && (
        <ProblemNotice
          look="warn"
          problem={{
            code: "diff_truncated",
            message: "Some files or lines are left out because the diff is large.",
            hint: "Fetch the branch to see all of it.",
            retryable: false,
          }}
        />
      )}
      {diff.files.map((file) => (
        <FileSection key={file.path} file={file} slots={slotsOf?.(file.path)} />
      ))}
    </div>
  );
}

function fileAnchor(path: string): string {
  return `file-${encodeURIComponent(path)}`;
}

function FileSection({ file, slots }: { file: FileDiff; slots: LineSlots | undefined }) {
  const [isOpen, setOpen] = useState(file.additions + file.deletions <= COLLAPSE_OVER_LINES);
  const status = STATUS[file.status];
  return (
    <section
      id={fileAnchor(file.path)}
      aria-label={file.path}
      className="scroll-mt-16 overflow-hidden rounded-md border border-line bg-surface"
    >
      <h3 className={isOpen ? "border-b border-line" : ""}>
        <button
          type="button"
          aria-expanded={isOpen}
          onClick={() => {
            setOpen(!isOpen);
          }}
          className="flex w-full items-center gap-2 bg-sunken px-3 py-2 text-left text-xs font-normal hover:bg-hover focus-visible:-outline-offset-2"
        >
          <Icon
            name="chevron"
            className={`size-3.5 text-muted transition-transform ${isOpen ? "rotate-90" : ""}`}
          />
          <span className="min-w-0 flex-1 font-mono break-all">
            {file.old_path != null && <span className="text-muted">{file.old_path} → </span>}
            {file.path}
          </span>
          {file.status !== "modified" && <Badge tone={status.tone}>{status.label}</Badge>}
          {!file.is_binary && (
            <LineCounts additions={file.additions} deletions={file.deletions} />
          )}
        </button>
      </h3>
      {isOpen && <FileBody file={file} slots={slots} />}
    </section>
  );
}

function FileBody({ file, slots }: { file: FileDiff; slots: LineSlots | undefined }): ReactNode {
  if (file.is_binary) return <p className="px-3 py-4 text-[13px] text-muted">Binary file</p>;
  if (file.patch === "") {
    return <p className="px-3 py-4 text-[13px] text-muted">No lines to show for this file.</p>;
  }
  return (
    <PatchTable
      path={file.path}
      patch={file.patch}
      {...(slots === undefined ? {} : { slots })}
    />
  );
}
