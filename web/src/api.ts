// The one client of the page and the one query cache. Must not know about components.
import { GreenroomClient, ProblemError } from "@greenroom/sdk";
import { MutationCache, QueryCache, QueryClient } from "@tanstack/react-query";

export const client = new GreenroomClient();

/** Called once when an answer says that nobody is signed in. */
let whenSignedOut: () => void = () => undefined;

/** Sets what happens when an answer says that nobody is signed in. */
export function onSignedOut(run: () => void): void {
  whenSignedOut = run;
}

/** Whether an error says that nobody is signed in. */
export function isSignedOut(error: unknown): boolean {
  return error instanceof ProblemError && error.status === 401;
}

/** Looks whether a failure says that nobody is signed in. */
export function noteFailure(error: unknown): void {
  if (isSignedOut(error)) whenSignedOut();
}

export const queryClient = new QueryClient({
  queryCache: new QueryCache({
    onError: (error, query) => {
      // Whoever watches by a link has nowhere to sign in.
      if (query.meta?.["isGuest"] !== true) noteFailure(error);
    },
  }),
  mutationCache: new MutationCache({ onError: noteFailure }),
  defaultOptions: {
    queries: {
      staleTime: 2_000,
      retry: (failures, error) =>
        failures < 2 &&
        error instanceof ProblemError &&
        error.problem.retryable,
    },
  },
});
