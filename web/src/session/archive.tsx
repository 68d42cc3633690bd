// The end of a session: archived it is kept for reading; from there its owner takes it back or deletes it.
import { problemOf, type SessionView } from "@greenroom/sdk";
import { useNavigate } from "@tanstack/react-router";
import { useState } from "react";
import { useDeleteSession, useUpdateSession } from "../queries.ts";
import { Button } from "../ui/button.tsx";
import { Dialog } from "../ui/dialog.tsx";
import { Icon } from "../ui/icon.tsx";
import { ProblemNotice } from "../ui/notice.tsx";

/** For the session's owner. */
export function ArchiveButton({ sessionId, view }: { sessionId: string; view: SessionView }) {
  const [isOpen, setOpen] = useState(false);
  const update = useUpdateSession(sessionId);
  const close = () => {
    setOpen(false);
    update.reset();
  };
  return (
    <>
      <Button
        look="quiet"
        className="px-2"
        onClick={() => {
          setOpen(true);
        }}
      >
        <Icon name="archive" />
        <span className="max-lg:sr-only">Archive</span>
      </Button>
      <Dialog
        isOpen={isOpen}
        onClose={close}
        title="Archive this session?"
        description="It is kept for reading and left out of lists. Its sandbox stops and keeps its files, so that you can take it back and go on."
      >
        <div className="grid gap-3">
          {isBusy(view) && (
            <p className="text-[13px] text-muted">
              A turn runs or prompts wait: stop it and empty the queue first.
            </p>
          )}
          {update.error !== null && <ProblemNotice problem={problemOf(update.error)} />}
          <div className="flex justify-end gap-2">
            <Button onClick={close}>Cancel</Button>
            <Button
              look="primary"
              disabled={update.isPending || isBusy(view)}
              onClick={() => {
                update.mutate({ is_archived: true }, { onSuccess: close });
              }}
            >
              {update.isPending ? "Archiving…" : "Archive"}
            </Button>
          </div>
        </div>
      </Dialog>
    </>
  );
}

function isBusy(view: SessionView): boolean {
  return view.state === "running" || view.state === "stopping";
}

/** Stands where the next prompt would be written. */
export function ArchivedNotice({ sessionId, isOwner }: { sessionId: string; isOwner: boolean }) {
  const update = useUpdateSession(sessionId);
  const [isSure, setSure] = useState(false);
  return (
    <div className="grid gap-2">
      {update.error !== null && <ProblemNotice problem={problemOf(update.error)} />}
      <div className="flex flex-wrap items-center gap-x-3 gap-y-2 rounded-md border border-line bg-sunken px-3 py-2 text-[13px] text-muted">
        <p className="min-w-0 flex-1 basis-52">This session is archived and kept for reading.</p>
        {isOwner && (
          <div className="flex gap-2">
            <Button
              look="danger"
              onClick={() => {
                setSure(true);
              }}
            >
              Delete…
            </Button>
            <Button
              disabled={update.isPending}
              onClick={() => {
                update.mutate({ is_archived: false });
              }}
            >
              {update.isPending ? "Taking it back…" : "Unarchive"}
            </Button>
          </div>
        )}
      </div>
      <DeleteDialog
        sessionId={sessionId}
        isOpen={isSure}
        onClose={() => {
          setSure(false);
        }}
      />
    </div>
  );
}

function DeleteDialog({
  sessionId,
  isOpen,
  onClose,
}: {
  sessionId: string;
  isOpen: boolean;
  onClose: () => void;
}) {
  const remove = useDeleteSession(sessionId);
  const navigate = useNavigate();
  return (
    <Dialog
      isOpen={isOpen}
      onClose={onClose}
      title="Delete this session for good?"
      description="Its log, its sandbox and its snapshots go and do not come back. Branches and pull requests stay."
    >
      <div className="grid gap-3">
        {remove.error !== null && <ProblemNotice problem={problemOf(remove.error)} />}
        <div className="flex justify-end gap-2">
          <Button onClick={onClose}>Cancel</Button>
          <Button
            look="danger"
            disabled={remove.isPending}
            onClick={() => {
              remove.mutate(undefined, { onSuccess: () => void navigate({ to: "/" }) });
            }}
          >
            {remove.isPending ? "Deleting…" : "Delete for good"}
          </Button>
        </div>
      </div>
    </Dialog>
  );
}
