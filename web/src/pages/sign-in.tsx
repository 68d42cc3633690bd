// Takes the one-time token out of the address, trades it for a cookie, and goes on.
import { problemOf } from "@greenroom/sdk";
import { getRouteApi, useRouter } from "@tanstack/react-router";
import { useEffect, useRef, useState } from "react";
import { tokenOfAddress } from "../layout/link-token.ts";
import { usePageTitle } from "../layout/page-title.ts";
import { useSignIn } from "../queries.ts";
import { Icon } from "../ui/icon.tsx";
import { ProblemNotice } from "../ui/notice.tsx";

const route = getRouteApi("/sign-in");

export function SignInPage() {
  usePageTitle("Sign in");
  const router = useRouter();
  const { next } = route.useSearch();
  const { mutate, error, isPending, isSuccess } = useSignIn();
  const [token] = useState(() => tokenOfAddress(window.location.hash));
  // A link works once: the strict mode of development must not use it up twice.
  const isSent = useRef(false);

  useEffect(() => {
    if (token === "" || isSent.current) return;
    isSent.current = true;
    // The token must not stay in the address bar, the history or a screenshot.
    window.history.replaceState(window.history.state, "", window.location.pathname);
    mutate(token, {
      onSuccess: () => {
        router.history.replace(next ?? "/");
      },
    });
  }, [token, mutate, router, next]);

  return (
    <main className="grid min-h-dvh place-items-center p-4">
      <div className="grid w-full max-w-sm gap-4 rounded-lg border border-line bg-surface p-6">
        <div className="flex items-center gap-3">
          <img src="/icon.svg" alt="" className="size-8" />
          <h1 className="text-lg font-semibold">Sign in to Greenroom</h1>
        </div>
        {(isPending || isSuccess) && (
          <p role="status" className="text-muted">
            Signing you in…
          </p>
        )}
        {error !== null && <ProblemNotice problem={problemOf(error)} />}
        {(token === "" || error !== null) && <HowToGetLink />}
      </div>
    </main>
  );
}

function HowToGetLink() {
  return (
    <div className="grid gap-2 text-[13px] text-muted">
      <p>
        Greenroom signs you in with a link that works once and for a limited time. Get a fresh one
        on the machine that runs it:
      </p>
      <pre className="flex items-center gap-2 overflow-x-auto rounded-md border border-line bg-sunken px-3 py-2 font-mono text-text">
        <Icon name="terminal" className="text-muted" />
        greenroom sign-in-link
      </pre>
      <p>Then open the address it prints in this browser.</p>
    </div>
  );
}
