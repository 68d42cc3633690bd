// Every question and command of the pages, as hooks over the query cache. The only place that calls the client.
import {
  freshIdempotencyKey,
  type AddPerson,
  type AddComment,
  type AddRepository,
  type AddReview,
  type ChangePrompt,
  type CreateLink,
  type CreateSession,
  type Delivery,
  type ForkSession,
  type GreenroomClient,
  type ImageAttachment,
  type ImageState,
  type MergePullRequest,
  type PullRequest,
  type PullRequestState,
  type Role,
  type UpdateSession,
} from "@greenroom/sdk";
import {
  keepPreviousData,
  useInfiniteQuery,
  useMutation,
  useQuery,
  useQueryClient,
} from "@tanstack/react-query";
import { useEffect, useRef, useState } from "react";
import { client } from "./api.ts";
import { closeOutboxes } from "./session/outbox.ts";

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
      closeOutboxes();
      cache.clear();
    },
  });
}

export function usePeople() {
  return useQuery({
    queryKey: ["people"],
    queryFn: async ({ signal }) => (await client.people(signal)).people,
  });
}

/** What an owner of the server does about a person. */
export type PersonCommand =
  | { act: "set_owner"; id: string; isOwner: boolean }
  | { act: "remove"; id: string };

export function usePersonCommand() {
  const cache = useQueryClient();
  return useMutation({
    mutationFn: async (command: PersonCommand) => {
      if (command.act === "remove") await client.removePerson(command.id);
      else await client.setServerOwner(command.id, command.isOwner);
    },
    onSettled: () =>
      Promise.all([
        cache.invalidateQueries({ queryKey: ["people"] }),
        cache.invalidateQueries({ queryKey: ["me"] }),
      ]),
  });
}

export function useAddPerson() {
  const cache = useQueryClient();
  return useMutation({
    mutationFn: (body: AddPerson) => client.addPerson(body),
    onSuccess: () => cache.invalidateQueries({ queryKey: ["people"] }),
  });
}

export function useSignInLinkFor() {
  return useMutation({ mutationFn: (id: string) => client.createSignInLinkFor(id) });
}

/** Who did what; `about` narrows it to what names that. */
export function useAudit(about: string) {
  return useInfiniteQuery({
    queryKey: ["audit", about],
    queryFn: ({ signal, pageParam }) =>
      client.audit(
        {
          limit: 50,
          ...(about === "" ? {} : { about }),
          ...(pageParam === 0 ? {} : { before: pageParam }),
        },
        signal,
      ),
    initialPageParam: 0,
    getNextPageParam: (page) => page.next_before ?? undefined,
    placeholderData: keepPreviousData,
  });
}

export function useLinks(sessionId: string) {
  return useQuery({
    queryKey: ["links", sessionId],
    queryFn: async ({ signal }) => (await client.links(sessionId, signal)).links,
  });
}

export function useCreateLink(sessionId: string) {
  const cache = useQueryClient();
  return useMutation({
    mutationFn: (body: CreateLink) => client.createLink(sessionId, body),
    onSuccess: () => cache.invalidateQueries({ queryKey: ["links", sessionId] }),
  });
}

export function useRevokeLink(sessionId: string) {
  const cache = useQueryClient();
  return useMutation({
    mutationFn: (linkId: string) => client.revokeLink(sessionId, linkId),
    onSettled: () => cache.invalidateQueries({ queryKey: ["links", sessionId] }),
  });
}

/** `null`: no member any more. The session's stream tells what became of it. */
export function useSetMember(sessionId: string) {
  return useMutation({
    mutationFn: async ({ personId, role }: { personId: string; role: Role | null }) => {
      if (role === null) await client.removeMember(sessionId, personId);
      else await client.setMember(sessionId, personId, role);
    },
  });
}

export function useJoinSession() {
  return useMutation({ mutationFn: (token: string) => client.joinSession(token) });
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

/** Images of a repository; asks often while one is built. */
export function useImages(repository: string) {
  return useQuery({
    queryKey: ["images", repository],
    queryFn: ({ signal }) => client.images(repository, signal),
    refetchInterval: (query) =>
      query.state.data?.images.some((image) => !isFinalImage(image.state)) === true
        ? 700
        : LIST_EVERY_MS,
  });
}

/** Whether nothing more happens to an image. */
export function isFinalImage(state: ImageState): boolean {
  return state === "published" || state === "failed";
}

export function useBuildImage(repository: string) {
  const cache = useQueryClient();
  return useMutation({
    mutationFn: (fromScratch: boolean) =>
      client.buildImage(repository, { from_scratch: fromScratch }),
    onSuccess: () => cache.invalidateQueries({ queryKey: ["images", repository] }),
  });
}

/** Characters of a log that are shown; of a longer one its end. */
const SHOWN_LOG = 200_000;

/** The log of an image's build, read as it grows. */
export function useImageLog(id: string): { text: string; isWhole: boolean } {
  const [log, setLog] = useState({ id, text: "", isWhole: false });
  useEffect(() => {
    const stop = new AbortController();
    const read = async () => {
      let after = 0;
      let text = "";
      while (!stop.signal.aborted) {
        let part;
        try {
          part = await client.imageLog(id, after, stop.signal);
        } catch {
          // The server may be back in a moment; the page says itself when it is not.
          await pause(2_000);
          continue;
        }
        const hasMore = part.end_offset > after;
        after = part.end_offset;
        text = (text + part.output).slice(-SHOWN_LOG);
        setLog({ id, text, isWhole: part.is_whole });
        if (part.is_whole) return;
        if (!hasMore) await pause(400);
      }
    };
    void read();
    return () => {
      stop.abort();
    };
  }, [id]);
  return log.id === id ? log : { text: "", isWhole: false };
}

function pause(ms: number): Promise<void> {
  return new Promise((resolve) => {
    setTimeout(resolve, ms);
  });
}

/** Between two signs of typing that the server hears. */
const TYPING_EVERY_MS = 10_000;

/** Tells the server that a prompt for a repository is typed, so that a sandbox waits for it. */
export function useTyping(repository: string) {
  const told = useRef({ repository: "", at: 0 });
  return () => {
    const now = Date.now();
    const isTold = told.current.repository === repository && now - told.current.at < TYPING_EVERY_MS;
    if (repository === "" || isTold) return;
    told.current = { repository, at: now };
    // Only a hint: without it the session starts a little later.
    client.typing(repository).catch(() => undefined);
  };
}

/** All that are not archived, or all that are; words are looked for in both. */
export function useSessions(words: string, isArchived: boolean) {
  return useInfiniteQuery({
    queryKey: ["sessions", words, isArchived],
    queryFn: ({ signal, pageParam }) =>
      client.sessions(
        {
          limit: 50,
          ...(words === "" ? {} : { words, archived: "include" as const }),
          ...(isArchived ? { archived: "only" as const } : {}),
          ...(pageParam === "" ? {} : { cursor: pageParam }),
        },
        signal,
      ),
    placeholderData: keepPreviousData,
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

export function useForkSession(sessionId: string) {
  const command = useCommandKey();
  const cache = useQueryClient();
  return useMutation({
    mutationFn: (body: ForkSession) =>
      client.forkSession(sessionId, body, command.keyFor(JSON.stringify(body))),
    onSuccess: () => {
      command.forget();
      return cache.invalidateQueries({ queryKey: ["sessions"] });
    },
  });
}

export function useSendPrompt(sessionId: string) {
  const command = useCommandKey();
  return useMutation({
    mutationFn: (body: { text: string; images: ImageAttachment[]; delivery: Delivery }) =>
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

export function useChangePrompt(sessionId: string) {
  return useMutation({
    mutationFn: ({ promptId, change }: { promptId: string; change: ChangePrompt }) =>
      client.changePrompt(sessionId, promptId, change),
  });
}

/** What waits stays then: whoever stops a turn may want to say something first. */
export function useStop(sessionId: string) {
  return useMutation({ mutationFn: () => client.stop(sessionId, true) });
}

export function useRetryEffect(sessionId: string) {
  return useMutation({
    mutationFn: (effectKey: string) => client.retryEffect(sessionId, effectKey),
  });
}

export function useUpdateSession(sessionId: string) {
  const cache = useQueryClient();
  return useMutation({
    mutationFn: (change: UpdateSession) => client.updateSession(sessionId, change),
    onSuccess: () => cache.invalidateQueries({ queryKey: ["sessions"] }),
  });
}

export function useDeleteSession(sessionId: string) {
  const cache = useQueryClient();
  return useMutation({
    mutationFn: () => client.deleteSession(sessionId),
    onSuccess: () => cache.invalidateQueries({ queryKey: ["sessions"] }),
  });
}

/** `commit` is the last pushed one: a push makes it another question. */
/** The live diff. `version` says what it shows; null: nothing yet. A newer version is asked for when the one before has come. */
export function useSessionDiff(by: GreenroomClient, sessionId: string, version: string | null) {
  const asked = useRef<string | null>(null);
  const query = useQuery({
    queryKey: ["session-diff", sessionId],
    queryFn: ({ signal }) => {
      asked.current = version;
      return by.sessionDiff(sessionId, true, signal);
    },
    meta: { isGuest: by !== client },
    enabled: version !== null,
  });
  const { isFetching, refetch } = query;
  useEffect(() => {
    if (version !== null && !isFetching && asked.current !== version) void refetch();
  }, [version, isFetching, refetch]);
  return query;
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
