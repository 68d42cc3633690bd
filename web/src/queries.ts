// Every question and command of the pages, as hooks over the query cache. The only place that calls the client.
import {
  freshIdempotencyKey,
  type AddComment,
  type AddRepository,
  type AddReview,
  type CreateSession,
  type ImageAttachment,
  type MergePullRequest,
  type PullRequest,
  type PullRequestState,
} from "@greenroom/sdk";
import { useInfiniteQuery, useMutation, useQuery, useQueryClient } from "@tanstack/react-query";
import { useRef } from "react";
import { client } from "./api.ts";

/** How often lists ask again while the page is in front. */
const LIST_EVERY_MS = 4_000;

export function useMe() {
  return useQuery({
    queryKey: ["me"],
    queryFn: ({ signal }) => client.me(signal),
    staleTime: 60_000,
  });
}

export function useSignIn() {
  const cache = useQueryClient();
  return useMutation({
    mutationFn: (token: string) => client.signIn({ token }),
    onSuccess: (person) => {
      cache.setQueryData(["me"], person);
    },
  });
}

export function useSignOut() {
  const cache = useQueryClient();
  return useMutation({
    mutationFn: () => client.signOut(),
    onSuccess: () => {
      cache.clear();
    },
  });
}

export function useModels() {
  return useQuery({
    queryKey: ["models"],
    queryFn: async ({ signal }) => (await client.models(signal)).models,
    staleTime: 60_000,
  });
}

export function useRepositories() {
  return useQuery({
    queryKey: ["repositories"],
    queryFn: async ({ signal }) => (await client.repositories(signal)).repositories,
  });
}

export function useAddRepository() {
  const cache = useQueryClient();
  return useMutation({
    mutationFn: (body: AddRepository) => client.addRepository(body),
    onSuccess: () => cache.invalidateQueries({ queryKey: ["repositories"] }),
  });
}

export function useBranches(repository: string) {
  return useQuery({
    queryKey: ["branches", repository],
    queryFn: async ({ signal }) => (await client.branches(repository, signal)).branches,
    enabled: repository !== "",
  });
}

export function useSessions() {
  return useInfiniteQuery({
    queryKey: ["sessions"],
    queryFn: ({ signal, pageParam }) =>
      client.sessions({ limit: 50, ...(pageParam === "" ? {} : { cursor: pageParam }) }, signal),
    initialPageParam: "",
    getNextPageParam: (page) => page.next_cursor ?? undefined,
    refetchInterval: LIST_EVERY_MS,
  });
}

export function useSession(id: string) {
  return useQuery({ queryKey: ["session", id], queryFn: ({ signal }) => client.session(id, signal) });
}

/** One key for one text: sending again after a lost answer is the same command, not a second one. */
function useCommandKey() {
  const sent = useRef<{ content: string; key: string } | null>(null);
  return {
    keyFor(content: string): string {
      if (sent.current?.content !== content) sent.current = { content, key: freshIdempotencyKey() };
      return sent.current.key;
    },
    forget() {
      sent.current = null;
    },
  };
}

export function useCreateSession() {
  const command = useCommandKey();
  const cache = useQueryClient();
  return useMutation({
    mutationFn: (body: CreateSession) =>
      client.createSession(body, command.keyFor(JSON.stringify(body))),
    onSuccess: () => {
      command.forget();
      return cache.invalidateQueries({ queryKey: ["sessions"] });
    },
  });
}

export function useSendPrompt(sessionId: string) {
  const command = useCommandKey();
  return useMutation({
    mutationFn: (body: { text: string; images: ImageAttachment[] }) =>
      client.sendPrompt(sessionId, body, command.keyFor(JSON.stringify(body))),
    onSuccess: () => {
      command.forget();
    },
  });
}

export function useCancelPrompt(sessionId: string) {
  return useMutation({
    mutationFn: (promptId: string) => client.cancelPrompt(sessionId, promptId),
  });
}

export function useStop(sessionId: string) {
  return useMutation({ mutationFn: () => client.stop(sessionId) });
}

/** `commit` is the last pushed one: a push makes it another question. */
export function useSessionDiff(sessionId: string, commit: string | null) {
  return useQuery({
    queryKey: ["session-diff", sessionId, commit],
    queryFn: ({ signal }) => client.sessionDiff(sessionId, signal),
    enabled: commit !== null,
  });
}

export function usePullRequests(state: PullRequestState) {
  return useQuery({
    queryKey: ["pull-requests", state],
    queryFn: async ({ signal }) => (await client.pullRequests({ state }, signal)).pull_requests,
    refetchInterval: LIST_EVERY_MS,
  });
}

const pullRequestKey = (repository: string, number: number) =>
  ["pull-request", repository, number] as const;

export function usePullRequest(repository: string, number: number) {
  return useQuery({
    queryKey: pullRequestKey(repository, number),
    queryFn: ({ signal }) => client.pullRequest(repository, number, signal),
    refetchInterval: LIST_EVERY_MS,
  });
}

export function usePullRequestCommits(repository: string, number: number, head: string) {
  return useQuery({
    queryKey: ["commits", repository, number, head],
    queryFn: async ({ signal }) => (await client.commits(repository, number, signal)).commits,
  });
}

export function usePullRequestDiff(repository: string, number: number, head: string) {
  return useQuery({
    queryKey: ["diff", repository, number, head],
    queryFn: ({ signal }) => client.pullRequestDiff(repository, number, signal),
  });
}

/** What a person may do to a pull request. */
export type PullRequestCommand =
  | { act: "comment"; body: AddComment }
  | { act: "review"; body: AddReview }
  | { act: "merge"; body: MergePullRequest }
  | { act: "close" }
  | { act: "reopen" }
  | { act: "delete_branch" };

function perform(
  repository: string,
  number: number,
  command: PullRequestCommand,
): Promise<PullRequest> {
  switch (command.act) {
    case "comment":
      return client.addComment(repository, number, command.body);
    case "review":
      return client.addReview(repository, number, command.body);
    case "merge":
      return client.merge(repository, number, command.body);
    case "close":
      return client.closePullRequest(repository, number);
    case "reopen":
      return client.reopenPullRequest(repository, number);
    case "delete_branch":
      return client.deleteHeadBranch(repository, number);
  }
}

export function usePullRequestCommand(repository: string, number: number) {
  const cache = useQueryClient();
  return useMutation({
    mutationFn: (command: PullRequestCommand) => perform(repository, number, command),
    onSuccess: (pullRequest) => {
      cache.setQueryData(pullRequestKey(repository, number), pullRequest);
      return cache.invalidateQueries({ queryKey: ["pull-requests"] });
    },
    // A refusal such as `head_moved` means that what is shown is old.
    onError: () => cache.invalidateQueries({ queryKey: pullRequestKey(repository, number) }),
  });
}
