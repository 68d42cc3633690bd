// Opens an invite link: becomes a member, and goes on to the session.
import { problemOf } from "@greenroom/sdk";
import { getRouteApi, Link, useNavigate } from "@tanstack/react-router";
import { useEffect, useRef, useState } from "react";
import { linkToken } from "../layout/link-token.ts";
import { usePageTitle } from "../layout/page-title.ts";
import { useJoinSession, useMe } from "../queries.ts";
import { buttonClass } from "../ui/button.tsx";
import { EmptyState, ProblemNotice, SkeletonRows } from "../ui/notice.tsx";

const route = getRouteApi("/app/join/$sessionId");

export function JoinPage() {
  usePageTitle("Join a session");
  const { sessionId } = route.useParams();
  const navigate = useNavigate();
  const me = useMe();
  const { mutate, error } = useJoinSession();
  const [token] = useState(() => linkToken(window.location.pathname));
  const isSent = useRef(false);
  // Whoever has to sign in first comes back here.
  const isReady = me.data !== undefined;

  useEffect(() => {
    if (!isReady || token === "" || isSent.current) return;
    isSent.current = true;
    mutate(token, {
      onSuccess: (joined) => {
        void navigate({
          to: "/sessions/$sessionId",
          params: { sessionId: joined.session_id },
          replace: true,
        });
      },
    });
  }, [isReady, token, mutate, navigate]);

  if (error === null && token !== "") return <SkeletonRows count={4} />;
  return (
    <EmptyState
      icon="link"
      title="This link does not let you in"
      action={
        <Link to="/sessions/$sessionId" params={{ sessionId }} className={buttonClass("secondary")}>
          Try the session itself
        </Link>
      }
    >
      {error === null ? (
        "What stands behind its # is missing. Copy the whole address."
      ) : (
        <ProblemNotice problem={problemOf(error)} />
      )}
    </EmptyState>
  );
}
