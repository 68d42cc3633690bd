// Says when what is shown may be old, and that it will catch up by itself.
import type { StreamStatus } from "@greenroom/sdk";
import { Icon } from "../ui/icon.tsx";
import { ProblemNotice } from "../ui/notice.tsx";

export function ConnectionLine({ connection }: { connection: StreamStatus }) {
  if (connection.status === "closed") {
    return connection.problem === null ? null : (
      <ProblemNotice problem={connection.problem} title="Live updates ended" />
    );
  }
  const isTrouble =
    connection.status === "waiting" || (connection.status === "connecting" && connection.attempt > 0);
  if (!isTrouble) return null;
  return (
    <p
      role="status"
      className="flex items-center gap-2 rounded-md border border-warn/30 bg-warn-soft px-3 py-1.5 text-[13px] text-warn"
    >
      <Icon name="alert" />
      Not connected. Reconnecting; nothing is lost.
    </p>
  );
}
