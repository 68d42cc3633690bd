// One file's changes as a table: line numbers, signs, coloured text; optionally a way to comment on a line.
import { Fragment, useMemo, type ReactNode } from "react";
import { Code } from "../markdown/code.tsx";
import { languageOf } from "../markdown/highlight.ts";
import { Icon } from "../ui/icon.tsx";
import { parsePatch, type DiffRow } from "./parse-patch.ts";

const LOOKS = {
  added: { row: "bg-add-line", gutter: "bg-add-gutter text-text", sign: "+" },
  removed: { row: "bg-del-line", gutter: "bg-del-gutter text-text", sign: "−" },
  context: { row: "", gutter: "text-muted", sign: "" },
} as const;

export interface LineSlots {
  /** Starts a comment on a line of the new version. */
  onComment: (line: number) => void;
  /** What stands below a line of the new version, if anything. */
  below: (line: number) => ReactNode;
}

export function PatchTable({
  path,
  patch,
  slots,
}: {
  path: string;
  patch: string;
  slots?: LineSlots;
}) {
  const rows = useMemo(() => parsePatch(patch), [patch]);
  const language = languageOf(path);
  return (
    <div
      className="overflow-x-auto bg-surface"
      tabIndex={0}
      role="region"
      aria-label={`Changes of ${path}`}
    >
      <table className="w-full border-collapse font-mono text-xs leading-5">
        <tbody>
          {rows.map((row, index) => {
            const newLine = row.kind === "added" || row.kind === "context" ? row.newLine : null;
            const below = newLine === null ? null : slots?.below(newLine);
            return (
              <Fragment key={index}>
                <Row row={row} language={language} onComment={slots?.onComment} />
                {below != null && (
                  <tr>
                    <td
                      colSpan={3}
                      className="border-y border-line bg-canvas p-0 font-sans text-sm whitespace-normal"
                    >
                      <div className="sticky left-0 max-w-[min(44rem,calc(100vw-3.5rem))] p-3">
                        {below}
                      </div>
                    </td>
                  </tr>
                )}
              </Fragment>
            );
          })}
        </tbody>
      </table>
    </div>
  );
}

function Row({
  row,
  language,
  onComment,
}: {
  row: DiffRow;
  language: string;
  onComment: ((line: number) => void) | undefined;
}) {
  if (row.kind === "hunk" || row.kind === "note") {
    return (
      <tr className="bg-info-soft text-muted">
        <td colSpan={3} className="px-3 py-1 whitespace-pre">
          {row.text}
        </td>
      </tr>
    );
  }
  const look = LOOKS[row.kind];
  const newLine = row.kind === "removed" ? null : row.newLine;
  const cell = `w-px min-w-10 px-2 text-right align-top select-none tabular-nums ${look.gutter}`;
  return (
    <tr className={`group ${look.row}`}>
      <td className={`${cell} max-sm:hidden`}>{row.kind === "added" ? "" : row.oldLine}</td>
      <td className={`relative ${cell}`}>
        {newLine ?? ""}
        {newLine !== null && onComment !== undefined && (
          <button
            type="button"
            aria-label={`Comment on line ${String(newLine)}`}
            className="absolute top-0 -right-2.5 z-10 grid size-5 place-items-center rounded bg-accent text-on-accent opacity-0 group-hover:opacity-100 focus-visible:opacity-100"
            onClick={() => {
              onComment(newLine);
            }}
          >
            <Icon name="plus" className="size-3" />
          </button>
        )}
      </td>
      <td className="pr-4 pl-3 whitespace-pre">
        <span className="inline-block w-4 select-none text-muted" aria-hidden="true">
          {look.sign}
        </span>
        {row.kind === "added" && <span className="sr-only">added: </span>}
        {row.kind === "removed" && <span className="sr-only">removed: </span>}
        <Code text={row.text} language={language} />
      </td>
    </tr>
  );
}
