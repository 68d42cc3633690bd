// Says what went wrong and what to do about it. Pure presentation.
import type { Problem } from "@greenroom/sdk";
import type { ReactNode } from "react";
import { Icon, type IconName } from "./icon.tsx";

const LOOKS = {
  bad: "border-bad/30 bg-bad-soft text-bad",
  warn: "border-warn/30 bg-warn-soft text-warn",
  info: "border-info/25 bg-info-soft text-info",
} as const;

export type NoticeLook = keyof typeof LOOKS;

export function ProblemNotice({
  problem,
  look = "bad",
  title,
  children,
}: {
  problem: Problem;
  look?: NoticeLook;
  title?: string;
  children?: ReactNode;
}) {
  return (
    <div
      role={look === "bad" ? "alert" : "note"}
      className={`flex gap-2 rounded-md border px-3 py-2 text-[13px] ${LOOKS[look]}`}
    >
      <Icon name={look === "info" ? "info" : "alert"} className="mt-0.5" />
      <div className="min-w-0 flex-1">
        <p className="font-medium">
          {title !== undefined && <span>{title}: </span>}
          <Words text={problem.message} />
        </p>
        {problem.hint != null && (
          <p className="mt-0.5 text-text">
            <Words text={problem.hint} />
          </p>
        )}
        <p className="mt-0.5 font-mono text-xs text-muted">{problem.code}</p>
        {children}
      </div>
    </div>
  );
}

/** Text in which backticks mark what is typed or written in a file. */
export function Words({ text }: { text: string }) {
  return text.split("`").map((part, index) =>
    index % 2 === 0 ? (
      part
    ) : (
      <code key={index} className="font-mono text-xs wrap-anywhere">
        {part}
      </code>
    ),
  );
}

/** A page or a list with nothing in it: says what would be here and how it gets here. */
export function EmptyState({
  icon,
  title,
  children,
  action,
}: {
  icon: IconName;
  title: string;
  children: ReactNode;
  action?: ReactNode;
}) {
  return (
    <div className="mx-auto grid max-w-md justify-items-center gap-2 px-4 py-16 text-center">
      <span className="mb-1 grid size-10 place-items-center rounded-full bg-accent-soft text-accent">
        <Icon name={icon} className="size-5" />
      </span>
      <h2 className="text-base font-semibold">{title}</h2>
      <div className="text-muted">{children}</div>
      {action !== undefined && <div className="mt-3">{action}</div>}
    </div>
  );
}

/** Rows in grey while a list loads. */
export function SkeletonRows({ count }: { count: number }) {
  return (
    <div role="status" aria-label="Loading" className="grid gap-px">
      {Array.from({ length: count }, (_, index) => (
        <div key={index} className="flex items-center gap-3 px-4 py-3.5">
          <span className="skeleton size-2.5 rounded-full" />
          <span className="grid flex-1 gap-2">
            <span className={`skeleton h-3 rounded ${index % 2 === 0 ? "w-3/5" : "w-2/5"}`} />
            <span className="skeleton h-2.5 w-1/4 rounded" />
          </span>
        </div>
      ))}
    </div>
  );
}
