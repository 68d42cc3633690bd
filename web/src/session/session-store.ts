// Holds the view of one followed session for React: frames in, batched snapshots out. Must not render.
import {
  type DraftState,
  EMPTY_SESSION_VIEW,
  type GreenroomClient,
  reduceFrame,
  SessionStream,
  streamUrl,
  type SessionView,
  type StreamFrame,
  type StreamStatus,
  withHistory,
} from "@greenroom/sdk";
import { useEffect, useState, useSyncExternalStore } from "react";

/** What a session page draws from. */
export interface SessionSnapshot {
  readonly view: SessionView;
  readonly connection: StreamStatus;
  /** Whether the part before what is shown is on its way, and why it did not come. */
  readonly earlier: { readonly isLoading: boolean; readonly error: unknown };
}

const BATCH_MS = 24;

/** A followed session; `follow` returns what ends it. */
export class SessionStore {
  readonly #client: GreenroomClient;
  readonly #sessionId: string;
  #stream: SessionStream | null = null;
  readonly #listeners = new Set<() => void>();
  #snapshot: SessionSnapshot = {
    view: EMPTY_SESSION_VIEW,
    connection: { status: "connecting", attempt: 0 },
    earlier: { isLoading: false, error: null },
  };
  #pending: StreamFrame[] = [];
  #flushTimer: ReturnType<typeof setTimeout> | null = null;

  constructor(client: GreenroomClient, sessionId: string) {
    this.#client = client;
    this.#sessionId = sessionId;
  }

  readonly subscribe = (listener: () => void): (() => void) => {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  };

  readonly snapshot = (): SessionSnapshot => this.#snapshot;

  /** Tells others how this page watches. */
  readonly tell = (watching: { is_away: boolean; draft: DraftState | null }): void => {
    this.#stream?.tell(watching);
  };

  follow(): () => void {
    const stream = new SessionStream({
      after: this.#snapshot.view.lastSeq,
      ticket: async () => (await this.#client.createStreamTicket()).ticket,
      open: (after, ticket) =>
        new WebSocket(
          streamUrl(window.location.origin, this.#sessionId, after, ticket, { recent: true }),
        ),
      onFrame: (frame) => {
        this.#take(frame);
      },
      onStatus: (connection) => {
        this.#publish({ ...this.#snapshot, connection });
      },
    });
    const retry = () => {
      stream.retryNow();
    };
    this.#stream = stream;
    window.addEventListener("online", retry);
    stream.start();
    return () => {
      window.removeEventListener("online", retry);
      stream.close();
      this.#stream = null;
      this.#flush();
    };
  }

  /** Reads the part before what is shown. */
  readonly loadEarlier = async (): Promise<void> => {
    const { view, earlier } = this.#snapshot;
    if (earlier.isLoading || view.firstSeq === 0) return;
    this.#publish({ ...this.#snapshot, earlier: { isLoading: true, error: null } });
    try {
      const history = await this.#client.history(this.#sessionId, view.firstSeq);
      this.#publish({
        ...this.#snapshot,
        view: withHistory(this.#snapshot.view, history),
        earlier: { isLoading: false, error: null },
      });
    } catch (error) {
      this.#publish({ ...this.#snapshot, earlier: { isLoading: false, error } });
    }
  };

  /** Frames come in bursts; one render per burst keeps long replays fast. */
  #take(frame: StreamFrame): void {
    this.#pending.push(frame);
    this.#flushTimer ??= setTimeout(() => {
      this.#flush();
    }, BATCH_MS);
  }

  #flush(): void {
    if (this.#flushTimer !== null) clearTimeout(this.#flushTimer);
    this.#flushTimer = null;
    if (this.#pending.length === 0) return;
    const frames = this.#pending;
    this.#pending = [];
    this.#publish({ ...this.#snapshot, view: frames.reduce(reduceFrame, this.#snapshot.view) });
  }

  #publish(snapshot: SessionSnapshot): void {
    this.#snapshot = snapshot;
    for (const listener of this.#listeners) listener();
  }
}

/** Follows a session as long as the component is shown. */
export function useSessionStream(
  client: GreenroomClient,
  sessionId: string,
): SessionSnapshot & Pick<SessionStore, "tell" | "loadEarlier"> {
  const [store] = useState(() => new SessionStore(client, sessionId));
  useEffect(() => store.follow(), [store]);
  const { tell, loadEarlier } = store;
  return { ...useSyncExternalStore(store.subscribe, store.snapshot), tell, loadEarlier };
}
