// One session of a signed-in person: what it shows, where the next prompt is written, and who else is let in.
import { problemOf, roleOf, type ImageAttachment, type Role, type SessionView } from "@greenroom/sdk";
import { getRouteApi, Link } from "@tanstack/react-router";
import { useState } from "react";
import { client } from "../api.ts";
import { useDraft } from "../draft.ts";
import { usePageTitle } from "../layout/page-title.ts";
import { useMe, useSession } from "../queries.ts";
import { ArchiveButton } from "../session/archive.tsx";
import { Composer } from "../session/composer.tsx";
import { ConnectionLine } from "../session/connection-line.tsx";
import { ForkDialog } from "../session/fork-dialog.tsx";
import { maySteer } from "../session/session-context.ts";
import { useOutbox } from "../session/outbox.ts";
import { useSessionStream } from "../session/session-store.ts";
import { SessionTabs, WatchOnly } from "../session/session-tabs.tsx";
import { TypingLine, Watchers } from "../session/watchers.tsx";
import { ShareDialog } from "../session/share-dialog.tsx";
import { Unsent } from "../session/unsent.tsx";
import { Button, buttonClass } from "../ui/button.tsx";
import { Icon } from "../ui/icon.tsx";
import { EmptyState, ProblemNotice } from "../ui/notice.tsx";

const route = getRouteApi("/app/sessions/$sessionId");

export function SessionPage() {
  const { sessionId } = route.useParams();
  const session = useSession(sessionId);
  if (session.error !== null && session.data === undefined) {
    return (
      <EmptyState
        icon="search"
        title="This session cannot be shown"
        action={
          <Link to="/" className={buttonClass("primary")}>
            Go to sessions
          </Link>
        }
      >
        <ProblemNotice problem={problemOf(session.error)} />
      </EmptyState>
    );
  }
  // Another address is another session: nothing of the old one may stay.
  return <FollowedSession key={sessionId} sessionId={sessionId} />;
}

function FollowedSession({ sessionId }: { sessionId: string }) {
  const { view, connection, earlier, tell, loadEarlier } = useSessionStream(client, sessionId);
  const [text, setText] = useDraft(sessionId);
  const [images, setImages] = useState<ImageAttachment[]>([]);
  const me = useMe().data;
  const { outbox, unsent } = useOutbox(sessionId, view, connection, me?.id);
  usePageTitle(view.title);
  // Until both are known nothing is taken away that a moment later is there.
  const role: Role = (me !== undefined && view.lastSeq > 0 ? roleOf(view, me) : "owner") ?? "viewer";
  return (
    <SessionTabs
      client={client}
      view={view}
      role={role}
      earlier={{ ...earlier, load: loadEarlier }}
      unsent={me !== undefined && outbox !== null && (
        <Unsent
          outbox={outbox}
          unsent={unsent}
          me={me}
          onEdit={(prompt) => {
            outbox.discard(prompt.key);
            // What was written meanwhile stays behind it.
            setText([prompt.text, text].filter((part) => part.trim() !== "").join("\n\n"));
            setImages([...prompt.images, ...images]);
          }}
        />
      )}
      actions={
        <div className="-mr-2 flex items-center">
          <Watchers presence={view.presence} meId={me?.id ?? null} />
          <ForkButton sessionId={sessionId} isReady={view.lastSeq > 0} />
          <ShareButton view={view} role={role} />
          {role === "owner" && view.lastSeq > 0 && view.state !== "archived" && (
            <ArchiveButton sessionId={sessionId} view={view} />
          )}
        </div>
      }
      bottom={
        <>
          <ConnectionLine connection={connection} />
          <TypingLine presence={view.presence} meId={me?.id ?? null} />
          {maySteer(role) ? (
            <Composer
              sessionId={sessionId}
              view={view}
              isOwner={role === "owner"}
              draft={{ text, setText, images, setImages }}
              outbox={outbox}
              tell={tell}
            />
          ) : (
            <WatchOnly>
              You may watch this session. {view.members[0]?.person.name ?? "Its owner"} can make you
              an editor.
            </WatchOnly>
          )}
        </>
      }
    />
  );
}

function ShareButton({ view, role }: { view: SessionView; role: Role }) {
  const [isOpen, setOpen] = useState(false);
  return (
    <>
      <Button
        look="quiet"
        className="px-2"
        disabled={view.lastSeq === 0}
        onClick={() => {
          setOpen(true);
        }}
      >
        <Icon name="people" />
        <span className="max-sm:sr-only">{role === "owner" ? "Share" : "People"}</span>
      </Button>
      <ShareDialog
        view={view}
        role={role}
        isOpen={isOpen}
        onClose={() => {
          setOpen(false);
        }}
      />
    </>
  );
}

function ForkButton({ sessionId, isReady }: { sessionId: string; isReady: boolean }) {
  const [isOpen, setOpen] = useState(false);
  return (
    <>
      <Button
        look="quiet"
        className="px-2"
        disabled={!isReady}
        onClick={() => {
          setOpen(true);
        }}
      >
        <Icon name="branch" />
        <span className="max-sm:sr-only">Fork</span>
      </Button>
      <ForkDialog
        sessionId={sessionId}
        isOpen={isOpen}
        onClose={() => {
          setOpen(false);
        }}
      />
    </>
  );
}
