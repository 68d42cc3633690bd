// Follows one session over a WebSocket: joins at a cursor, comes back after every loss, never skips and never repeats.
// Must not interpret events beyond their number.
import { ProblemError } from "./problem.ts";
import type { DraftState, Problem, StreamFrame } from "./wire.ts";

/** How the connection stands. */
export type StreamStatus =
  | { readonly status: "connecting"; readonly attempt: number }
  | { readonly status: "open" }
  | { readonly status: "waiting"; readonly attempt: number; readonly retryInMs: number }
  /** Given up: trying again would not help. */
  | { readonly status: "closed"; readonly problem: Problem | null };

/** The part of a browser's WebSocket that is used. */
export type SocketLike = Pick<
  WebSocket,
  "onopen" | "onmessage" | "onclose" | "onerror" | "send" | "close"
>;

/** What a stream needs of the world; tests pass their own. */
export interface StreamOptions {
  /** Gets a single-use ticket; rejects with a `ProblemError`. */
  ticket: () => Promise<string>;
  /** Opens a socket that joins behind event number `after`. */
  open: (after: number, ticket: string) => SocketLike;
  /** Number of the last event the caller has. */
  after: number;
  onFrame: (frame: StreamFrame) => void;
  onStatus: (status: StreamStatus) => void;
  setTimer?: (run: () => void, delayMs: number) => unknown;
  clearTimer?: (timer: unknown) => void;
  /** Number from 0 to 1 that spreads reconnects. */
  random?: () => number;
}

const FIRST_DELAY_MS = 250;
const LONGEST_DELAY_MS = 10_000;
const PING_EVERY_MS = 25_000;
const TELL_EVERY_MS = 150;

/** Wait before attempt number `attempt` (from 1), half of it random so that clients do not return at once. */
export function reconnectDelayMs(attempt: number, random: number): number {
  const full = Math.min(LONGEST_DELAY_MS, FIRST_DELAY_MS * 2 ** Math.min(attempt - 1, 10));
  return Math.round(full / 2 + (full / 2) * random);
}

/** Address of a session's stream for a page of the same origin. */
export function streamUrl(
  origin: string,
  sessionId: string,
  after: number,
  ticket: string,
  /** Of a long session only what is recent, behind an overview; what came before is read by `history`. */
  options: { recent?: boolean } = {},
): string {
  const url = new URL(`/v1/sessions/${encodeURIComponent(sessionId)}/stream`, origin);
  url.protocol = url.protocol === "https:" ? "wss:" : "ws:";
  url.searchParams.set("after", String(after));
  if (options.recent === true) url.searchParams.set("recent", "true");
  url.searchParams.set("ticket", ticket);
  return url.href;
}

/** A followed session. Call `start` once and `close` when done. */
export class SessionStream {
  readonly #options: Required<StreamOptions>;
  #cursor: number;
  #attempt = 0;
  #socket: SocketLike | null = null;
  #retryTimer: unknown = null;
  #pingTimer: unknown = null;
  #tellTimer: unknown = null;
  #watching: { is_away: boolean; draft: DraftState | null } | null = null;
  #isOpen = false;
  #isClosed = false;
  /** Grows with each connection, so that late callbacks of an old one do nothing. */
  #connection = 0;

  constructor(options: StreamOptions) {
    this.#options = {
      setTimer: (run, delayMs) => setTimeout(run, delayMs),
      clearTimer: (timer) => {
        clearTimeout(timer as ReturnType<typeof setTimeout>);
      },
      random: Math.random,
      ...options,
    };
    this.#cursor = options.after;
  }

  /** Number of the last event handed to `onFrame`. */
  get cursor(): number {
    return this.#cursor;
  }

  start(): void {
    void this.#connect();
  }

  /** Tries at once instead of waiting, such as when the device is online again. */
  retryNow(): void {
    if (this.#retryTimer === null) return;
    this.#clearRetry();
    void this.#connect();
  }

  /** Tells others how this client watches. At most so often as the server takes it; of several changes the last counts. */
  tell(watching: { is_away: boolean; draft: DraftState | null }): void {
    this.#watching = watching;
    this.#tellTimer ??= this.#options.setTimer(() => {
      this.#tellTimer = null;
      this.#sendWatching();
    }, TELL_EVERY_MS);
  }

  /** What was told, or has to be told again to a new socket. */
  #sendWatching(): void {
    if (this.#socket === null || !this.#isOpen || this.#watching === null) return;
    const { is_away, draft } = this.#watching;
    this.#socket.send(
      JSON.stringify({ frame: "presence", is_away, ...(draft === null ? {} : { draft }) }),
    );
  }

  close(): void {
    this.#isClosed = true;
    if (this.#tellTimer !== null) this.#options.clearTimer(this.#tellTimer);
    this.#tellTimer = null;
    this.#clearRetry();
    this.#dropSocket();
  }

  async #connect(): Promise<void> {
    if (this.#isClosed) return;
    this.#connection += 1;
    const connection = this.#connection;
    this.#options.onStatus({ status: "connecting", attempt: this.#attempt });
    let ticket: string;
    try {
      ticket = await this.#options.ticket();
    } catch (error) {
      if (this.#isCurrent(connection)) this.#afterTicketFailure(error);
      return;
    }
    if (!this.#isCurrent(connection)) return;
    const socket = this.#options.open(this.#cursor, ticket);
    this.#socket = socket;
    socket.onmessage = (message) => {
      if (this.#isCurrent(connection)) this.#receive(message.data);
    };
    socket.onclose = () => {
      if (this.#isCurrent(connection)) this.#reconnect(null);
    };
    socket.onerror = () => {
      // A close always follows, and that is where the reconnect starts.
    };
    socket.onopen = () => {
      if (this.#isCurrent(connection)) this.#schedulePing();
    };
  }

  #isCurrent(connection: number): boolean {
    return !this.#isClosed && connection === this.#connection;
  }

  #afterTicketFailure(error: unknown): void {
    if (!(error instanceof ProblemError)) {
      this.#reconnect(null);
    } else if (isWorthRetrying(error.status, error.problem)) {
      this.#reconnect(error.problem.retry_after_ms ?? null);
    } else {
      this.#giveUp(error.problem);
    }
  }

  #receive(data: unknown): void {
    const frame = parseFrame(data);
    if (frame === null) return;
    switch (frame.frame) {
      case "hello":
        this.#attempt = 0;
        this.#isOpen = true;
        // Only that somebody looks at something else: a draft is told when it changes.
        if (this.#watching?.is_away === true) this.#sendWatching();
        this.#options.onStatus({ status: "open" });
        break;
      case "overview":
        this.#cursor = frame.overview.seq;
        break;
      case "event":
        if (frame.event.seq <= this.#cursor) return;
        if (frame.event.seq !== this.#cursor + 1) {
          // Something got lost on the way: join again at what is known for certain.
          this.#reconnect(null);
          return;
        }
        this.#cursor = frame.event.seq;
        break;
      case "closing":
        this.#options.onFrame(frame);
        if (frame.problem.retryable) {
          this.#reconnect(frame.problem.retry_after_ms ?? null);
        } else {
          this.#giveUp(frame.problem);
        }
        return;
      default:
        break;
    }
    this.#options.onFrame(frame);
  }

  #reconnect(afterMs: number | null): void {
    this.#dropSocket();
    if (this.#isClosed) return;
    this.#attempt += 1;
    const delay = reconnectDelayMs(this.#attempt, this.#options.random());
    const retryInMs = Math.max(delay, afterMs ?? 0);
    this.#options.onStatus({ status: "waiting", attempt: this.#attempt, retryInMs });
    this.#clearRetry();
    this.#retryTimer = this.#options.setTimer(() => {
      this.#retryTimer = null;
      void this.#connect();
    }, retryInMs);
  }

  #giveUp(problem: Problem): void {
    this.close();
    this.#options.onStatus({ status: "closed", problem });
  }

  #schedulePing(): void {
    this.#clearPing();
    this.#pingTimer = this.#options.setTimer(() => {
      this.#socket?.send('{"frame":"ping"}');
      this.#schedulePing();
    }, PING_EVERY_MS);
  }

  #dropSocket(): void {
    this.#clearPing();
    this.#isOpen = false;
    this.#connection += 1;
    const socket = this.#socket;
    this.#socket = null;
    socket?.close();
  }

  #clearRetry(): void {
    if (this.#retryTimer !== null) this.#options.clearTimer(this.#retryTimer);
    this.#retryTimer = null;
  }

  #clearPing(): void {
    if (this.#pingTimer !== null) this.#options.clearTimer(this.#pingTimer);
    this.#pingTimer = null;
  }
}

function isWorthRetrying(status: number, problem: Problem): boolean {
  return status === 0 || problem.retryable || status === 429 || status >= 500;
}

function parseFrame(data: unknown): StreamFrame | null {
  if (typeof data !== "string") return null;
  try {
    const value: unknown = JSON.parse(data);
    if (typeof value !== "object" || value === null || !("frame" in value)) return null;
    return value as StreamFrame;
  } catch {
    return null;
  }
}
