import { expect, test } from "vitest";
import { ProblemError } from "./problem.ts";
import { reconnectDelayMs, SessionStream, streamUrl, type SocketLike, type StreamStatus } from "./stream.ts";
import type { StreamFrame } from "./wire.ts";

/** A server that a test plays by hand: sockets in the order they were opened, timers that run when told. */
function stage(ticket: () => Promise<string> = () => Promise.resolve("t")) {
  const sockets: { after: number; socket: SocketLike; isClosed: boolean }[] = [];
  const timers: { run: () => void; delayMs: number }[] = [];
  const frames: StreamFrame[] = [];
  const statuses: StreamStatus[] = [];
  const said: string[] = [];
  const stream = new SessionStream({
    after: 0,
    ticket,
    open: (after) => {
      const entry = {
        after,
        isClosed: false,
        socket: {
          onopen: null,
          onmessage: null,
          onclose: null,
          onerror: null,
          send: (text) => {
            if (typeof text === "string") said.push(text);
          },
          close: () => {
            entry.isClosed = true;
          },
        } as SocketLike,
      };
      sockets.push(entry);
      return entry.socket;
    },
    onFrame: (frame) => frames.push(frame),
    onStatus: (status) => statuses.push(status),
    setTimer: (run, delayMs) => {
      const timer = { run, delayMs };
      timers.push(timer);
      return timer;
    },
    clearTimer: (timer) => {
      const index = timers.findIndex((entry) => entry === timer);
      if (index !== -1) timers.splice(index, 1);
    },
    random: () => 0,
  });
  const say = (index: number, frame: unknown) => {
    const receive = sockets[index]?.socket.onmessage as ((event: { data: string }) => void) | null;
    receive?.({ data: JSON.stringify(frame) });
  };
  const settle = () => new Promise<void>((resolve) => setImmediate(resolve));
  const seqs = () => frames.flatMap((frame) => (frame.frame === "event" ? [frame.event.seq] : []));
  return { stream, sockets, timers, frames, statuses, said, say, settle, seqs };
}

const hello = { frame: "hello", generation: 1, session_id: "s", last_seq: 9 };
const event = (seq: number) => ({
  frame: "event",
  event: { seq, at_ms: 0, type: "session.titled", title: String(seq) },
});
const drop = (socket: SocketLike) => {
  (socket.onclose as (() => void) | null)?.();
};

test("comes back at its cursor; overlap is not repeated", async () => {
  const on = stage();
  on.stream.start();
  await on.settle();
  for (const frame of [hello, event(1), event(2)]) on.say(0, frame);
  const first = on.sockets[0];
  if (first === undefined) throw new Error("no socket");
  drop(first.socket);
  expect(on.statuses.at(-1)).toMatchObject({ status: "waiting", attempt: 1 });
  on.timers[0]?.run();
  await on.settle();
  expect(on.sockets[1]?.after).toBe(2);
  for (const frame of [hello, event(2), event(3)]) on.say(1, frame);
  expect(on.seqs()).toEqual([1, 2, 3]);
  expect(on.statuses.at(-1)).toEqual({ status: "open" });
});

test("a gap means joining again, and nothing behind it is shown", async () => {
  const on = stage();
  on.stream.start();
  await on.settle();
  for (const frame of [hello, event(1), event(3), event(4)]) on.say(0, frame);
  expect(on.seqs()).toEqual([1]);
  expect(on.sockets[0]?.isClosed).toBe(true);
  on.timers[0]?.run();
  await on.settle();
  expect(on.sockets[1]?.after).toBe(1);
});

test("a closing frame that may be retried waits as long as asked", async () => {
  const on = stage();
  on.stream.start();
  await on.settle();
  on.say(0, { frame: "closing", last_seq: 0, problem: { code: "too_slow", message: "m", retryable: true, retry_after_ms: 7_000 } });
  expect(on.statuses.at(-1)).toMatchObject({ status: "waiting", retryInMs: 7_000 });
});

test("a closing frame that may not be retried ends it", async () => {
  const on = stage();
  on.stream.start();
  await on.settle();
  const problem = { code: "session_gone", message: "m", retryable: false };
  on.say(0, { frame: "closing", last_seq: 0, problem });
  expect(on.statuses.at(-1)).toEqual({ status: "closed", problem });
  expect(on.timers).toEqual([]);
});

test("no ticket because nobody is signed in ends it; because nobody answers, it tries again", async () => {
  for (const [status, wanted] of [[401, "closed"], [0, "waiting"], [503, "waiting"]] as const) {
    const on = stage(() => Promise.reject(new ProblemError({ code: "c", message: "m", retryable: false }, status)));
    on.stream.start();
    await on.settle();
    expect(on.statuses.at(-1)?.status).toBe(wanted);
  }
});

test("retryNow does not wait; close ends everything", async () => {
  const on = stage(() => Promise.reject(new ProblemError({ code: "c", message: "m", retryable: false }, 0)));
  on.stream.start();
  await on.settle();
  on.stream.retryNow();
  await on.settle();
  expect(on.statuses.filter((status) => status.status === "connecting")).toHaveLength(2);
  on.stream.close();
  expect(on.timers).toEqual([]);
});

test("garbage on the wire is ignored", async () => {
  const on = stage();
  on.stream.start();
  await on.settle();
  (on.sockets[0]?.socket.onmessage as (event: { data: unknown }) => void)({ data: "{" });
  on.say(0, null);
  on.say(0, [1]);
  expect(on.frames).toEqual([]);
});

test.each([
  [1, 0, 125],
  [1, 1, 250],
  [4, 1, 2_000],
  [50, 1, 10_000],
])("attempt %i with chance %f waits %i ms", (attempt, random, delay) => {
  expect(reconnectDelayMs(attempt, random)).toBe(delay);
});

test("the address keeps the page's security", () => {
  expect(streamUrl("https://host:1", "ses_1", 4, "a b")).toBe("wss://host:1/v1/sessions/ses_1/stream?after=4&ticket=a+b");
  expect(streamUrl("http://127.0.0.1:2", "ses_1", 0, "t")).toMatch(/^ws:\/\/127\.0\.0\.1:2\//u);
});

test("how a client watches is told when there is a server, the last of several, and away again to the next one", async () => {
  const { stream, sockets, timers, said, say, settle } = stage();
  const run = (at: number) => {
    const [timer] = timers.splice(at, 1);
    timer?.run();
  };
  stream.start();
  await settle();
  stream.tell({ is_away: false, draft: { length: 1, cursor: 1 } });
  run(0);
  expect(said).toEqual([]);
  say(0, hello);
  stream.tell({ is_away: false, draft: { length: 2, cursor: 2 } });
  stream.tell({ is_away: true, draft: null });
  expect(timers).toHaveLength(1);
  run(0);
  expect(said.map((text) => JSON.parse(text) as unknown)).toEqual([
    { frame: "presence", is_away: true },
  ]);
  const first = sockets[0];
  if (first !== undefined) drop(first.socket);
  run(0);
  await settle();
  say(1, hello);
  expect(said).toHaveLength(2);
  stream.tell({ is_away: false, draft: null });
  stream.close();
  expect(timers).toHaveLength(0);
});
