// A session by a share link: for watching, without signing in. Its own client: whoever watches here may be signed in or not.
import { GreenroomClient, problemOf } from "@greenroom/sdk";
import { useQuery } from "@tanstack/react-query";
import { getRouteApi } from "@tanstack/react-router";
import { useState } from "react";
import { linkToken } from "../layout/link-token.ts";
import { usePageTitle } from "../layout/page-title.ts";
import { ConnectionLine } from "../session/connection-line.tsx";
import { useSessionStream } from "../session/session-store.ts";
import { SessionTabs, WatchOnly } from "../session/session-tabs.tsx";
import { EmptyState, ProblemNotice } from "../ui/notice.tsx";

const route = getRouteApi("/shared/$sessionId");

export function SharedPage() {
  const { sessionId } = route.useParams();
  const token = linkToken(window.location.pathname);
  return (
    <div className="flex min-h-dvh flex-col">
      <header className="sticky top-0 z-30 flex h-12 items-center gap-2 border-b border-line bg-surface px-3 font-semibold sm:px-4">
        <img src="/icon.svg" alt="" className="size-6" />
        Greenroom
      </header>
      <main className="flex flex-1 flex-col">
        {token === "" ? (
          <EmptyState icon="link" title="This link is not whole">
            What stands behind its # is missing. Copy the whole address.
          </EmptyState>
        ) : (
          <Shared sessionId={sessionId} token={token} />
        )}
      </main>
    </div>
  );
}

function Shared({ sessionId, token }: { sessionId: string; token: string }) {
  const [client] = useState(() => new GreenroomClient({ token }));
  const session = useQuery({
    queryKey: ["shared", sessionId],
    queryFn: ({ signal }) => client.session(sessionId, signal),
    meta: { isGuest: true },
  });
  if (session.error !== null && session.data === undefined) {
    return (
      <EmptyState icon="link" title="This session cannot be shown">
        <ProblemNotice problem={problemOf(session.error)} />
      </EmptyState>
    );
  }
  return session.data === undefined ? null : <Followed client={client} sessionId={sessionId} />;
}

function Followed({ client, sessionId }: { client: GreenroomClient; sessionId: string }) {
  const { view, connection, earlier, loadEarlier } = useSessionStream(client, sessionId);
  usePageTitle(view.title);
  return (
    <SessionTabs
      client={client}
      view={view}
      role={null}
      earlier={{ ...earlier, load: loadEarlier }}
      actions={null}
      bottom={
        <>
          <ConnectionLine connection={connection} />
          <WatchOnly>You watch by a link. Nobody sees that you are here.</WatchOnly>
        </>
      }
    />
  );
}
