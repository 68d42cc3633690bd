// Prompts that wait: their authors rewrite, move and remove them here.
import { problemOf, queuedPrompts, runningTurn, type PromptView, type SessionView } from "@greenroom/sdk";
import { useState } from "react";
import { useCancelPrompt, useChangePrompt, useMe, useSendPrompt, useUpdateSession } from "../queries.ts";
import { Button, IconButton } from "../ui/button.tsx";
import { Icon } from "../ui/icon.tsx";
import { ProblemNotice } from "../ui/notice.tsx";

export function Queue({ sessionId, view }: { sessionId: string; view: SessionView }) {
  const cancel = useCancelPrompt(sessionId);
  const change = useChangePrompt(sessionId);
  const me = useMe().data?.id;
  const update = useUpdateSession(sessionId);
  const send = useSendPrompt(sessionId);
  // What is being rewritten, kept here: its turn may begin meanwhile, and what was typed is not lost by that.
  const [draft, setDraft] = useState<Draft | null>(null);
  const queued = queuedPrompts(view);
  const isDraftLeft =
    draft !== null && !queued.some((entry) => entry.prompt.id === draft.promptId);
  if (queued.length === 0 && !isDraftLeft) return null;
  const failure = cancel.error ?? change.error ?? update.error ?? send.error;
  const isBusy = cancel.isPending || change.isPending || update.isPending;
  return (
    <section aria-label="Queue" className="rounded-md border border-line bg-sunken">
      {isDraftLeft && (
        <LeftDraft
          text={draft.text}
          isBusy={send.isPending}
          onSend={() => {
            send.mutate(
              { text: draft.text, images: [], delivery: "queue" },
              {
                onSuccess: () => {
                  setDraft(null);
                },
              },
            );
          }}
          onDiscard={() => {
            setDraft(null);
          }}
        />
      )}
      <header hidden={queued.length === 0} className="flex items-center gap-2 pt-1 pr-1 pl-3 text-xs">
        <h2 className="font-medium text-muted">
          {queued.length} queued {queued.length === 1 ? "prompt" : "prompts"}
        </h2>
        {view.isQueuePaused && <span className="font-medium text-warn">paused</span>}
        <button
          type="button"
          className="ml-auto rounded px-1.5 py-0.5 font-medium text-accent hover:underline disabled:opacity-50"
          disabled={isBusy}
          onClick={() => {
            update.mutate({ is_queue_paused: !view.isQueuePaused });
          }}
        >
          {view.isQueuePaused ? "Go on" : "Pause"}
        </button>
      </header>
      <ol className="max-h-[34dvh] overflow-y-auto">
        {queued.map((entry, position) => (
          <QueuedPrompt
            key={entry.prompt.id}
            entry={entry}
            isFirst={position === 0}
            isOwn={entry.prompt.author.id === me}
            mayOrder={entry.prompt.author.id === me || view.members[0]?.person.id === me}
            isBusy={isBusy}
            draft={draft?.promptId === entry.prompt.id ? draft.text : null}
            onDraft={(text) => {
              setDraft(text === null ? null : { promptId: entry.prompt.id, text });
            }}
            onText={(text, done) => {
              change.mutate({ promptId: entry.prompt.id, change: { text } }, { onSuccess: done });
            }}
            onInsert={
              runningTurn(view) !== null && entry.prompt.delivery !== "insert"
                ? () => {
                    change.mutate({ promptId: entry.prompt.id, change: { delivery: "insert" } });
                  }
                : null
            }
            onEarlier={() => {
              change.mutate({ promptId: entry.prompt.id, change: { position: position - 1 } });
            }}
            onRemove={() => {
              cancel.mutate(entry.prompt.id);
            }}
          />
        ))}
      </ol>
      {failure !== null && (
        <div className="p-2">
          <ProblemNotice problem={problemOf(failure)} />
        </div>
      )}
    </section>
  );
}

interface Draft {
  readonly promptId: string;
  readonly text: string;
}

/** What somebody typed for a prompt that no longer waits. */
function LeftDraft({
  text,
  isBusy,
  onSend,
  onDiscard,
}: {
  text: string;
  isBusy: boolean;
  onSend: () => void;
  onDiscard: () => void;
}) {
  return (
    <div role="status" className="grid gap-2 px-3 py-2 text-[13px]">
      <p className="font-medium">This prompt does not wait any more, so it was not changed.</p>
      <p className="max-h-24 overflow-y-auto whitespace-pre-wrap text-muted">{text}</p>
      <div className="flex justify-end gap-2">
        <Button onClick={onDiscard}>Discard</Button>
        <Button look="primary" disabled={isBusy || text.trim() === ""} onClick={onSend}>
          Queue as a new prompt
        </Button>
      </div>
    </div>
  );
}

interface QueuedPromptProps {
  readonly entry: PromptView;
  readonly isFirst: boolean;
  readonly isOwn: boolean;
  readonly mayOrder: boolean;
  readonly isBusy: boolean;
  /** What its author types to replace it; null: nothing. */
  readonly draft: string | null;
  readonly onDraft: (text: string | null) => void;
  readonly onText: (text: string, done: () => void) => void;
  /** Null: it cannot be told to a turn now, or will be already. */
  readonly onInsert: (() => void) | null;
  readonly onEarlier: () => void;
  readonly onRemove: () => void;
}

function QueuedPrompt(props: QueuedPromptProps) {
  const { prompt } = props.entry;
  const { draft, onDraft: setDraft } = props;
  const name = prompt.text.slice(0, 60);
  if (draft !== null) {
    const end = () => {
      setDraft(null);
    };
    const canSave = draft.trim() !== "" && !props.isBusy;
    const save = () => {
      if (canSave) props.onText(draft, end);
    };
    return (
      <li className="grid gap-2 px-3 py-2">
        <textarea
          autoFocus
          aria-label={`Queued prompt: ${name}`}
          rows={3}
          className="w-full resize-y rounded-md border border-line bg-surface px-2 py-1.5 text-[13px]"
          value={draft}
          onChange={(event) => {
            setDraft(event.target.value);
          }}
          onKeyDown={(event) => {
            if (event.key === "Escape") {
              // Not also a press of those that stop the turn.
              event.preventDefault();
              end();
            }
            if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) save();
          }}
        />
        <div className="flex justify-end gap-2">
          <Button onClick={end}>Cancel</Button>
          <Button look="primary" disabled={!canSave} onClick={save} title="Ctrl Enter">
            Save
          </Button>
        </div>
      </li>
    );
  }
  return (
    <li className="flex items-center gap-1 py-0.5 pr-1 pl-3 text-[13px]">
      <span className="min-w-0 flex-1 truncate">{prompt.text}</span>
      {prompt.delivery === "insert" && (
        <span className="shrink-0 text-xs font-medium text-accent">at the next step</span>
      )}
      <span className="mr-1 shrink-0 text-xs text-muted max-sm:hidden">{prompt.author.name}</span>
      {props.mayOrder && props.onInsert !== null && (
        <IconButton label={`Tell the agent now: ${name}`} disabled={props.isBusy} onClick={props.onInsert}>
          <Icon name="spark" className="size-3.5" />
        </IconButton>
      )}
      {props.mayOrder && (
        <IconButton
          label={`Run earlier: ${name}`}
          disabled={props.isFirst || props.isBusy}
          onClick={props.onEarlier}
        >
          <Icon name="arrow_up" className="size-3.5" />
        </IconButton>
      )}
      {props.isOwn && (
        <IconButton
          label={`Edit queued prompt: ${name}`}
          disabled={props.isBusy}
          onClick={() => {
            setDraft(prompt.text);
          }}
        >
          <Icon name="pencil" className="size-3.5" />
        </IconButton>
      )}
      {props.mayOrder && (
        <IconButton label={`Remove queued prompt: ${name}`} disabled={props.isBusy} onClick={props.onRemove}>
          <Icon name="close" className="size-3.5" />
        </IconButton>
      )}
    </li>
  );
}
