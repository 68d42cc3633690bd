// The bottom of a session: what waits, where the next prompt is written, and Stop.
import { problemOf, type Delivery, type ImageAttachment, type SessionView } from "@greenroom/sdk";
import { useEffect, useRef } from "react";
import { useStop } from "../queries.ts";
import { Button } from "../ui/button.tsx";
import { Icon } from "../ui/icon.tsx";
import { ProblemNotice } from "../ui/notice.tsx";
import { ArchivedNotice } from "./archive.tsx";
import type { Draft, Outbox } from "./outbox.ts";
import { PromptBox } from "./prompt-box.tsx";
import { Queue } from "./queue.tsx";
import type { SessionStore } from "./session-store.ts";

/** Two presses of Escape within this time stop the turn. */
const DOUBLE_PRESS_MS = 600;

export function Composer({
  sessionId,
  view,
  isOwner,
  draft,
  outbox,
  tell,
}: {
  sessionId: string;
  view: SessionView;
  isOwner: boolean;
  draft: Draft & {
    setText: (text: string) => void;
    setImages: (images: ImageAttachment[]) => void;
  };
  /** Takes what is sent. */
  outbox: Outbox | null;
  /** Tells others that a prompt is written here. */
  tell: SessionStore["tell"];
}) {
  const { text, setText, images, setImages } = draft;
  const stop = useStop(sessionId);
  const isRunning = view.state === "running" || view.state === "stopping";
  const canSend = text.trim() !== "" && outbox !== null && view.state !== "archived";

  const submit = (delivery: Delivery) => {
    if (!canSend) return;
    outbox.send({ text, images, delivery });
    setText("");
    setImages([]);
  };
  useDoubleEscape(view.state === "running", () => {
    stop.mutate();
  });
  const failure = stop.error;
  const tellDraft = useTellDraft(text, tell);

  return (
    <div className="grid gap-2">
      <Queue sessionId={sessionId} view={view} />
      {failure !== null && <ProblemNotice problem={problemOf(failure)} />}
      {view.state === "archived" ? (
        <ArchivedNotice sessionId={sessionId} isOwner={isOwner} />
      ) : (
        <PromptBox
          label="Prompt"
          placeholder="Ask for the next change"
          text={text}
          onText={setText}
          images={images}
          onImages={setImages}
          onSend={() => {
            submit(view.delivery);
          }}
          onCursor={tellDraft}
          rows={2}
          actions={
            <>
              {isRunning && (
                <Button
                  look="danger"
                  disabled={view.state === "stopping" || stop.isPending}
                  title="Esc Esc; what waits stays"
                  onClick={() => {
                    stop.mutate();
                  }}
                >
                  <Icon name="stop" className="size-3.5" />
                  {view.state === "stopping" ? "Stopping…" : "Stop"}
                </Button>
              )}
              {(isRunning ? inOrder(view.delivery) : [view.delivery]).map((delivery) => (
                <Button
                  key={delivery}
                  look={delivery === view.delivery ? "primary" : "secondary"}
                  disabled={!canSend}
                  onClick={() => {
                    submit(delivery);
                  }}
                  title={
                    (isRunning ? MEANINGS[delivery] : "Send") +
                    (delivery === view.delivery ? " (Ctrl Enter)" : "")
                  }
                >
                  {delivery === view.delivery && <Icon name="send" />}
                  {isRunning ? NAMES[delivery] : "Send"}
                </Button>
              ))}
            </>
          }
        />
      )}
    </div>
  );
}

const NAMES: Record<Delivery, string> = { queue: "Queue", insert: "Tell now" };

const MEANINGS: Record<Delivery, string> = {
  queue: "Waits for a turn of its own",
  insert: "The agent reads it at its next step",
};

/** The session's default stands last, where Send is. */
function inOrder(last: Delivery): Delivery[] {
  return last === "queue" ? ["insert", "queue"] : ["queue", "insert"];
}

/** Tells others whether this page is in front, and how far its prompt is while somebody writes it. */
function useTellDraft(text: string, tell: SessionStore["tell"]): (cursor: number | null) => void {
  const cursor = useRef<number | null>(null);
  const latest = useRef(text);
  const publish = useRef<() => void>(() => undefined);
  useEffect(() => {
    latest.current = text;
    publish.current = () => {
      const length = latest.current.length;
      tell({
        is_away: document.hidden,
        draft:
          cursor.current === null || length === 0
            ? null
            : { length, cursor: Math.min(cursor.current, length) },
      });
    };
  });
  // A prompt that was sent is no longer written; one that is only shown, such as a draft of yesterday, is not written either.
  useEffect(() => {
    if (cursor.current !== null) publish.current();
  }, [text]);
  useEffect(() => {
    const look = () => {
      publish.current();
    };
    document.addEventListener("visibilitychange", look);
    return () => {
      document.removeEventListener("visibilitychange", look);
    };
  }, []);
  return (at) => {
    cursor.current = at;
    publish.current();
  };
}

function useDoubleEscape(isActive: boolean, run: () => void): void {
  const latest = useRef(run);
  useEffect(() => {
    latest.current = run;
  });
  useEffect(() => {
    if (!isActive) return;
    let lastPressMs = Number.NEGATIVE_INFINITY;
    const listen = (event: KeyboardEvent) => {
      if (event.key !== "Escape" || event.defaultPrevented) return;
      if (event.timeStamp - lastPressMs < DOUBLE_PRESS_MS) {
        lastPressMs = Number.NEGATIVE_INFINITY;
        latest.current();
      } else {
        lastPressMs = event.timeStamp;
      }
    };
    window.addEventListener("keydown", listen);
    return () => {
      window.removeEventListener("keydown", listen);
    };
  }, [isActive]);
}
