// Times and sizes as people read them. Pure but for `useNow`.
import { useEffect, useState } from "react";

/** How long ago something was, short: "now", "5m", "3h", "2d", then the date. */
export function formatAgo(atMs: number, nowMs: number): string {
  const seconds = Math.max(0, Math.floor((nowMs - atMs) / 1000));
  if (seconds < 45) return "now";
  if (seconds < 3600) return `${String(Math.max(1, Math.round(seconds / 60)))}m`;
  if (seconds < 86_400) return `${String(Math.round(seconds / 3600))}h`;
  if (seconds < 7 * 86_400) return `${String(Math.round(seconds / 86_400))}d`;
  return new Date(atMs).toLocaleDateString(undefined, { month: "short", day: "numeric" });
}

/** A duration, short: "420 ms", "3.2 s", "1 m 05 s". */
export function formatDuration(ms: number): string {
  if (ms < 1000) return `${String(Math.round(ms))} ms`;
  if (ms < 59_950) return `${(ms / 1000).toFixed(1)} s`;
  const seconds = Math.round(ms / 1000);
  return `${String(Math.floor(seconds / 60))} m ${String(seconds % 60).padStart(2, "0")} s`;
}

/** A count of tokens, short: "812", "14.2k". */
export function formatCount(count: number): string {
  return count < 1000 ? String(count) : `${(count / 1000).toFixed(1)}k`;
}

/** A size, short: "812 KiB", "210 MiB", "3.4 GiB". */
export function formatBytes(bytes: number): string {
  const kib = bytes / 1024;
  if (kib < 1000) return `${String(Math.ceil(kib))} KiB`;
  const mib = kib / 1024;
  if (mib < 1000) return `${mib < 10 ? mib.toFixed(1) : String(Math.round(mib))} MiB`;
  return `${(mib / 1024).toFixed(1)} GiB`;
}

/** The time now, renewed every `everyMs`. */
export function useNow(everyMs: number): number {
  const [now, setNow] = useState(() => Date.now());
  useEffect(() => {
    const timer = setInterval(() => {
      setNow(Date.now());
    }, everyMs);
    return () => {
      clearInterval(timer);
    };
  }, [everyMs]);
  return now;
}
