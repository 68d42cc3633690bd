// Prompts on their way to the server, of one person in one session: shown at once, sent in order, kept over a reload of the tab, and known
// again by their key when they come back as events. Sending one twice is safe: the key is the same. Outside of React, because a
// prompt goes on when its page is left.
import {
  freshIdempotencyKey,
  ProblemError,
  type Delivery,
  type ImageAttachment,
  type Problem,
  type SessionView,
  type StreamStatus,
} from "@greenroom/sdk";
import { useEffect, useSyncExternalStore } from "react";
import { client, noteFailure } from "../api.ts";

/** What is written in the composer. */
export interface Draft {
  readonly text: string;
  readonly images: ImageAttachment[];
}

/** A prompt that the session does not show yet. */
export interface UnsentPrompt extends Draft {
  readonly key: string;
  readonly delivery: Delivery;
  /** Null: it is on its way, or waits for those before it. */
  readonly problem: Problem | null;
  /** Number of the event that holds it, once the server has accepted it. */
  readonly seq: number | null;
}

/** What is kept over a reload: images are too large for it. */
interface Kept {
  readonly at: number;
  readonly text: string;
  readonly delivery: Delivery;
  readonly imageCount: number;
}

const IMAGES_LOST: Problem = {
  code: "images_lost",
  message: "The page was loaded again before the server had answered, and the images are gone.",
  hint: "It may have arrived: look for it above before you attach the images again.",
  retryable: false,
};

const UNREACHABLE: Problem = {
  code: "unreachable",
  message: "The server could not be reached.",
  hint: "It is sent when the connection is back.",
  retryable: true,
};

/** An answer that takes longer than any network needs will not come; whether it was accepted is found out by sending it again. */
const PATIENCE_MS = 30_000;
const FIRST_PAUSE_MS = 1_000;
const LONGEST_PAUSE_MS = 30_000;

const PLACE = "greenroom.unsent";

export class Outbox {
  /** Whoever signs in next in this tab sees and sends nothing of somebody else's. */
  readonly #place: string;
  readonly #sessionId: string;
  readonly #listeners = new Set<() => void>();
  #all: readonly UnsentPrompt[];
  /** Those that are tried again later; their problem shows until then. */
  readonly #held = new Set<string>();
  #isSending = false;
  #isClosed = false;
  #failures = 0;
  #timer: ReturnType<typeof setTimeout> | null = null;
  /** Ends the wait for the answer to what turned up in the session by itself. */
  #arrived: { key: string; end: () => void } | null = null;

  constructor(personId: string, sessionId: string) {
    this.#place = `${PLACE}.${personId}.${sessionId}.`;
    this.#sessionId = sessionId;
    this.#all = restored(this.#place);
    void this.#pump();
  }

  readonly subscribe = (listener: () => void): (() => void) => {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  };

  readonly snapshot = (): readonly UnsentPrompt[] => this.#all;

  send(draft: Draft & { delivery: Delivery }): void {
    const prompt = { ...draft, key: freshIdempotencyKey(), problem: null, seq: null };
    keep(this.#place, prompt);
    this.#set([...this.#all, prompt]);
    void this.#pump();
  }

  /** Sends what was refused, and what waits behind it. */
  sendAgain(key: string): void {
    this.#held.delete(key);
    this.#put(key, { problem: null });
    void this.#pump();
  }

  discard(key: string): void {
    this.#held.delete(key);
    forget(this.#place, key);
    this.#set(this.#all.filter((prompt) => prompt.key !== key));
    void this.#pump();
  }

  /** Lets go of what the session shows. */
  look(view: SessionView): void {
    const shown = this.#all.filter((prompt) => isShown(prompt, view));
    if (shown.length === 0) return;
    for (const { key } of shown) {
      forget(this.#place, key);
      if (this.#arrived?.key === key) this.#arrived.end();
    }
    this.#set(this.#all.filter((prompt) => !shown.includes(prompt)));
    void this.#pump();
  }

  /** The server can be reached: what could not be sent is tried at once. */
  connected(): void {
    this.#failures = 0;
    this.#retry();
  }

  /** Nobody is signed in any more: nothing of this person is sent. */
  close(): void {
    this.#isClosed = true;
    if (this.#timer !== null) clearTimeout(this.#timer);
  }

  #retry(): void {
    this.#held.clear();
    void this.#pump();
  }

  /** Sends one after another, until nothing is left or one has to wait; what was refused for good holds nobody up. */
  async #pump(): Promise<void> {
    if (this.#isSending) return;
    this.#isSending = true;
    for (;;) {
      const next = this.#all.find(
        ({ seq, problem }) => seq === null && (problem === null || problem.retryable),
      );
      // Whatever stands behind one that is tried again later arrives behind it.
      if (next === undefined || this.#held.has(next.key) || this.#isClosed) break;
      await this.#attempt(next);
    }
    this.#isSending = false;
  }

  async #attempt({ key, text, images, delivery }: UnsentPrompt): Promise<void> {
    const arrived = new Promise<null>((resolve) => {
      this.#arrived = {
        key,
        end: () => {
          resolve(null);
        },
      };
    });
    try {
      const answer = client.sendPrompt(this.#sessionId, { text, images, delivery }, key);
      const receipt = await Promise.race([inTime(answer), arrived]);
      this.#failures = 0;
      forget(this.#place, key);
      if (receipt !== null) this.#put(key, { seq: receipt.seq, problem: null });
    } catch (error: unknown) {
      noteFailure(error);
      const isAnswer = error instanceof ProblemError && error.status !== 0;
      const problem = isAnswer ? error.problem : UNREACHABLE;
      this.#put(key, { problem });
      if (problem.retryable) {
        this.#held.add(key);
        this.#planRetry(problem.retry_after_ms ?? null);
      }
    } finally {
      this.#arrived = null;
    }
  }

  #planRetry(afterMs: number | null): void {
    this.#failures += 1;
    const pause = Math.min(LONGEST_PAUSE_MS, FIRST_PAUSE_MS * 2 ** Math.min(this.#failures, 10));
    if (this.#timer !== null) clearTimeout(this.#timer);
    this.#timer = setTimeout(() => {
      this.#timer = null;
      if (!this.#isClosed) this.#retry();
    }, afterMs ?? pause);
  }

  #put(key: string, change: Partial<UnsentPrompt>): void {
    this.#set(this.#all.map((prompt) => (prompt.key === key ? { ...prompt, ...change } : prompt)));
  }

  #set(all: readonly UnsentPrompt[]): void {
    this.#all = all;
    for (const listener of this.#listeners) listener();
  }
}

/** Whether the session shows it. */
function isShown(prompt: UnsentPrompt, view: SessionView): boolean {
  return (
    (prompt.seq !== null && prompt.seq <= view.lastSeq) ||
    view.prompts.some(({ key }) => key === prompt.key)
  );
}

function inTime<T>(answer: Promise<T>): Promise<T> {
  return new Promise((resolve, reject) => {
    const timer = setTimeout(() => {
      reject(new Error("no answer"));
    }, PATIENCE_MS);
    answer.then(resolve, reject).finally(() => {
      clearTimeout(timer);
    });
  });
}

function restored(place: string): UnsentPrompt[] {
  try {
    const kept = Object.keys(sessionStorage)
      .filter((name) => name.startsWith(place))
      .map((name) => ({
        key: name.slice(place.length),
        ...(JSON.parse(sessionStorage.getItem(name) ?? "null") as Kept),
      }));
    return kept
      .sort((one, other) => one.at - other.at)
      .map(({ key, text, delivery, imageCount }) => ({
        key,
        text,
        images: [],
        delivery,
        problem: imageCount > 0 ? IMAGES_LOST : null,
        seq: null,
      }));
  } catch {
    return [];
  }
}

let lastAt = 0;

function keep(place: string, { key, text, delivery, images }: UnsentPrompt): void {
  // Two of one millisecond keep their order.
  lastAt = Math.max(Date.now(), lastAt + 1);
  const kept: Kept = { at: lastAt, text, delivery, imageCount: images.length };
  try {
    sessionStorage.setItem(place + key, JSON.stringify(kept));
  } catch {
    // Storage is switched off or full: it lives in the page alone.
  }
}

function forget(place: string, key: string): void {
  try {
    sessionStorage.removeItem(place + key);
  } catch {
    // It was never kept.
  }
}

const open = new Map<string, Outbox>();

function outboxOf(personId: string, sessionId: string): Outbox {
  const name = `${personId} ${sessionId}`;
  const known = open.get(name) ?? new Outbox(personId, sessionId);
  open.set(name, known);
  return known;
}

/** Nobody is signed in any more: what is on its way stays where it is until the same person comes back. */
export function closeOutboxes(): void {
  for (const outbox of open.values()) outbox.close();
  open.clear();
}

const NOTHING: readonly UnsentPrompt[] = [];

/** What is on its way of somebody in a session; null until it is known who that is. */
export function useOutbox(
  sessionId: string,
  view: SessionView,
  connection: StreamStatus,
  personId: string | undefined,
): { outbox: Outbox | null; unsent: readonly UnsentPrompt[] } {
  const outbox = personId === undefined ? null : outboxOf(personId, sessionId);
  const all = useSyncExternalStore(
    outbox?.subscribe ?? (() => () => undefined),
    outbox?.snapshot ?? (() => NOTHING),
  );
  useEffect(() => {
    outbox?.look(view);
  }, [outbox, view]);
  const isConnected = connection.status === "open";
  useEffect(() => {
    if (isConnected) outbox?.connected();
  }, [outbox, isConnected]);
  return { outbox, unsent: all.filter((prompt) => !isShown(prompt, view)) };
}
