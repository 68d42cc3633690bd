// Prompts that wait: their authors rewrite, move and remove them here.
import { problemOf, queuedPrompts, type PromptView, type SessionView } from "@greenroom/sdk";
import { useState } from "react";
import { useCancelPrompt, useChangePrompt, useMe } from "../queries.ts";
import { Button, IconButton } from "../ui/button.tsx";
import { Icon } from "../ui/icon.tsx";
import { ProblemNotice } from "../ui/notice.tsx";

export function Queue({ sessionId, view }: { sessionId: string; view: SessionView }) {
  const cancel = useCancelPrompt(sessionId);
  const change = useChangePrompt(sessionId);
  const me = useMe().data?.id;
  const queued = queuedPrompts(view);
  if (queued.length === 0) return null;
  const failure = cancel.error ?? change.error;
  const isBusy = cancel.isPending || change.isPending;
  return (
    <section aria-label="Queue" className="rounded-md border border-line bg-sunken">
      <h2 className="px-3 pt-1.5 text-xs font-medium text-muted">
        {queued.length} queued {queued.length === 1 ? "prompt" : "prompts"}
      </h2>
      <ol className="max-h-[34dvh] overflow-y-auto">
        {queued.map((entry, position) => (
          <QueuedPrompt
            key={entry.prompt.id}
            entry={entry}
            isFirst={position === 0}
            isOwn={entry.prompt.author.id === me}
            mayOrder={entry.prompt.author.id === me || view.createdBy?.id === me}
            isBusy={isBusy}
            onText={(text, done) => {
              change.mutate({ promptId: entry.prompt.id, change: { text } }, { onSuccess: done });
            }}
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

interface QueuedPromptProps {
  readonly entry: PromptView;
  readonly isFirst: boolean;
  readonly isOwn: boolean;
  readonly mayOrder: boolean;
  readonly isBusy: boolean;
  readonly onText: (text: string, done: () => void) => void;
  readonly onEarlier: () => void;
  readonly onRemove: () => void;
}

function QueuedPrompt(props: QueuedPromptProps) {
  const { prompt } = props.entry;
  const [draft, setDraft] = useState<string | null>(null);
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
      <span className="mr-1 shrink-0 text-xs text-muted max-sm:hidden">{prompt.author.name}</span>
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
