// Begins new sessions with what a session has: its files, its conversation, and a branch of their own.
import { problemOf, type Session } from "@greenroom/sdk";
import { Link, useNavigate } from "@tanstack/react-router";
import { useId, useState } from "react";
import { useForkSession } from "../queries.ts";
import { Button } from "../ui/button.tsx";
import { Dialog } from "../ui/dialog.tsx";
import { SelectField, TextArea } from "../ui/field.tsx";
import { Icon } from "../ui/icon.tsx";
import { ProblemNotice } from "../ui/notice.tsx";

const COUNTS = [1, 2, 3, 4, 5, 6, 7, 8];

export function ForkDialog({
  sessionId,
  isOpen,
  onClose,
}: {
  sessionId: string;
  isOpen: boolean;
  onClose: () => void;
}) {
  return (
    <Dialog
      isOpen={isOpen}
      onClose={onClose}
      title="Fork session"
      description="A fork begins with the files and the conversation of now, on a branch of its own. This session goes on."
    >
      <ForkForm sessionId={sessionId} onClose={onClose} />
    </Dialog>
  );
}

function ForkForm({ sessionId, onClose }: { sessionId: string; onClose: () => void }) {
  const fork = useForkSession(sessionId);
  const navigate = useNavigate();
  const promptId = useId();
  const [prompt, setPrompt] = useState("");
  const [count, setCount] = useState(1);
  if (fork.data !== undefined && fork.data.sessions.length > 1) {
    return <Forks sessions={fork.data.sessions.map((made) => made.session)} onClose={onClose} />;
  }
  return (
    <form
      className="grid gap-3"
      onSubmit={(event) => {
        event.preventDefault();
        const text = prompt.trim();
        fork.mutate(
          { count, ...(text === "" ? {} : { prompt: text }) },
          {
            onSuccess: ({ sessions }) => {
              const [only] = sessions;
              if (sessions.length !== 1 || only === undefined) return;
              onClose();
              void navigate({ to: "/sessions/$sessionId", params: { sessionId: only.session.id } });
            },
          },
        );
      }}
    >
      <div className="grid gap-1">
        <label htmlFor={promptId} className="text-[13px] font-medium">
          Prompt
        </label>
        <TextArea
          id={promptId}
          label="Prompt"
          value={prompt}
          rows={4}
          placeholder="What should be tried from here?"
          onChange={(event) => {
            setPrompt(event.target.value);
          }}
        />
        <p className="text-xs text-muted">Leave it blank to prompt later.</p>
      </div>
      <SelectField
        label="How many"
        value={count}
        onChange={(event) => {
          setCount(Number(event.target.value));
        }}
      >
        {COUNTS.map((number) => (
          <option key={number} value={number}>
            {number}
          </option>
        ))}
      </SelectField>
      {fork.error !== null && <ProblemNotice problem={problemOf(fork.error)} />}
      <div className="flex justify-end">
        <Button type="submit" look="primary" disabled={fork.isPending}>
          {fork.isPending ? "Forking…" : count === 1 ? "Fork" : `Make ${String(count)} forks`}
        </Button>
      </div>
    </form>
  );
}

function Forks({ sessions, onClose }: { sessions: readonly Session[]; onClose: () => void }) {
  return (
    <div className="grid gap-3">
      <p role="status" className="text-[13px] text-muted">
        {sessions.length} sessions begin from here.
      </p>
      <ul className="grid gap-1">
        {sessions.map((session, index) => (
          <li key={session.id}>
            <Link
              to="/sessions/$sessionId"
              params={{ sessionId: session.id }}
              onClick={onClose}
              className="flex min-w-0 items-center gap-2 rounded-md border border-line px-2.5 py-2 text-[13px] hover:bg-hover"
            >
              <Icon name="branch" className="text-muted" />
              <span className="min-w-0 flex-1 truncate">
                {index + 1}. {session.title}
              </span>
            </Link>
          </li>
        ))}
      </ul>
    </div>
  );
}
