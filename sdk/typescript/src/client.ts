// One typed method per endpoint over fetch. Must not keep state, retry on its own or know about pages.
import { parseProblem, ProblemError } from "./problem.ts";
import type * as wire from "./wire.ts";

/** What a client needs to reach a server. */
export interface ClientOptions {
  /** Origin of the server, without a slash at the end; empty: the page's own. */
  baseUrl?: string;
  /** API token of a program; a browser uses its cookie instead. */
  token?: string;
  /** Replaces the global fetch, for tests. */
  fetch?: typeof fetch;
}

/** Filters of the pull request list. */
export interface PullRequestFilter {
  state?: wire.PullRequestState;
  repository?: string;
}

/** Filters and page of the sessions list. */
export interface SessionFilter {
  /** 1 to 200. */
  limit?: number;
  cursor?: string;
  repository?: string;
  /** All of them in the title, or in one prompt; words may be only begun. */
  words?: string;
  /** What becomes of archived sessions; they are left out if absent. */
  archived?: "exclude" | "only" | "include";
}

interface RequestOptions {
  method?: "GET" | "POST" | "PUT" | "PATCH" | "DELETE";
  body?: unknown;
  idempotencyKey?: string;
  signal?: AbortSignal | undefined;
}

/** A fresh idempotency key: send the same one again when repeating a request whose answer was lost. */
export function freshIdempotencyKey(): string {
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
}

function query(parameters: Record<string, string | number | undefined>): string {
  const search = new URLSearchParams();
  for (const [name, value] of Object.entries(parameters)) {
    if (value !== undefined) search.set(name, String(value));
  }
  const text = search.toString();
  return text === "" ? "" : `?${text}`;
}

const segment = encodeURIComponent;

/** Typed access to a Greenroom server. Every method rejects with a `ProblemError`. */
export class GreenroomClient {
  readonly #baseUrl: string;
  readonly #token: string | undefined;
  readonly #fetch: typeof fetch;

  constructor(options: ClientOptions = {}) {
    this.#baseUrl = options.baseUrl ?? "";
    this.#token = options.token;
    this.#fetch = options.fetch ?? ((input, init) => fetch(input, init));
  }

  health(signal?: AbortSignal): Promise<wire.Health> {
    return this.#json("/v1/health", { signal });
  }
  signIn(body: wire.SignIn): Promise<wire.Me> {
    return this.#json("/v1/sign-in", { method: "POST", body });
  }
  async signOut(): Promise<void> {
    await this.#send("/v1/sign-out", { method: "POST" });
  }
  me(signal?: AbortSignal): Promise<wire.Me> {
    return this.#json("/v1/me", { signal });
  }
  updateMe(body: wire.UpdateMe): Promise<wire.Person> {
    return this.#json("/v1/me", { method: "PATCH", body });
  }
  createToken(body: wire.CreateToken): Promise<wire.CreatedToken> {
    return this.#json("/v1/tokens", { method: "POST", body });
  }
  createStreamTicket(): Promise<wire.StreamTicket> {
    return this.#json("/v1/stream-tickets", { method: "POST" });
  }
  people(signal?: AbortSignal): Promise<wire.AccountList> {
    return this.#json("/v1/people", { signal });
  }
  /** The answer holds a link that signs them in once. For owners of the server, as all of the following up to `audit`. */
  addPerson(body: wire.AddPerson): Promise<wire.AddedPerson> {
    return this.#json("/v1/people", { method: "POST", body });
  }
  createSignInLinkFor(personId: string): Promise<wire.SignInLink> {
    return this.#json(`/v1/people/${segment(personId)}/sign-in-links`, { method: "POST" });
  }
  setServerOwner(personId: string, isOwner: boolean): Promise<wire.Account> {
    return this.#json(`/v1/people/${segment(personId)}`, {
      method: "PATCH",
      body: { is_owner: isOwner },
    });
  }
  async removePerson(personId: string): Promise<void> {
    await this.#send(`/v1/people/${segment(personId)}`, { method: "DELETE" });
  }
  /** The newest first. */
  audit(
    filter: { before?: number; person?: string; about?: string; limit?: number } = {},
    signal?: AbortSignal,
  ): Promise<wire.AuditPage> {
    return this.#json(`/v1/audit${query({ ...filter })}`, { signal });
  }

  /** Address of a file that a session keeps, such as an image of a prompt, for an <img> of somebody who is signed in. */
  blobUrl(sessionId: string, digest: string): string {
    return `${this.#baseUrl}/v1/sessions/${segment(sessionId)}/blobs/${segment(digest)}`;
  }

  /** A file that a session keeps. */
  async blob(sessionId: string, digest: string, signal?: AbortSignal): Promise<Blob> {
    const path = `/v1/sessions/${segment(sessionId)}/blobs/${segment(digest)}`;
    return await (await this.#send(path, { signal })).blob();
  }

  members(sessionId: string, signal?: AbortSignal): Promise<wire.MemberList> {
    return this.#json(`/v1/sessions/${segment(sessionId)}/members`, { signal });
  }
  /** To make somebody its owner is to hand the session over. */
  setMember(sessionId: string, personId: string, role: wire.Role): Promise<wire.MemberList> {
    return this.#json(`/v1/sessions/${segment(sessionId)}/members/${segment(personId)}`, {
      method: "PUT",
      body: { role },
    });
  }
  async removeMember(sessionId: string, personId: string): Promise<void> {
    await this.#send(`/v1/sessions/${segment(sessionId)}/members/${segment(personId)}`, {
      method: "DELETE",
    });
  }
  links(sessionId: string, signal?: AbortSignal): Promise<wire.SessionLinkList> {
    return this.#json(`/v1/sessions/${segment(sessionId)}/links`, { signal });
  }
  /** The only time that the link's address is told. */
  createLink(sessionId: string, body: wire.CreateLink): Promise<wire.CreatedLink> {
    return this.#json(`/v1/sessions/${segment(sessionId)}/links`, { method: "POST", body });
  }
  async revokeLink(sessionId: string, linkId: string): Promise<void> {
    await this.#send(`/v1/sessions/${segment(sessionId)}/links/${segment(linkId)}`, {
      method: "DELETE",
    });
  }
  /** By what stands behind `#token=` in an invite link. */
  joinSession(token: string): Promise<wire.JoinedSession> {
    return this.#json("/v1/memberships", { method: "POST", body: { token } });
  }

  models(signal?: AbortSignal): Promise<wire.ModelList> {
    return this.#json("/v1/models", { signal });
  }

  repositories(signal?: AbortSignal): Promise<wire.RepositoryList> {
    return this.#json("/v1/repositories", { signal });
  }
  addRepository(body: wire.AddRepository): Promise<wire.Repository> {
    return this.#json("/v1/repositories", { method: "POST", body });
  }
  branches(repository: string, signal?: AbortSignal): Promise<wire.BranchList> {
    return this.#json(`/v1/repositories/${segment(repository)}/branches`, { signal });
  }

  /** Tells that the person types a prompt for a new session; 429 if told a moment ago. */
  typing(repository: string): Promise<wire.TypingReport> {
    return this.#json(`/v1/repositories/${segment(repository)}/typing`, { method: "POST" });
  }
  images(repository: string, signal?: AbortSignal): Promise<wire.ImageList> {
    return this.#json(`/v1/repositories/${segment(repository)}/images`, { signal });
  }
  buildImage(repository: string, body: Partial<wire.BuildImage> = {}): Promise<wire.Image> {
    return this.#json(`/v1/repositories/${segment(repository)}/images`, { method: "POST", body });
  }
  imageLog(id: string, after: number, signal?: AbortSignal): Promise<wire.ImageLog> {
    return this.#json(`/v1/images/${segment(id)}/log${query({ after })}`, { signal });
  }

  sessions(filter: SessionFilter = {}, signal?: AbortSignal): Promise<wire.SessionList> {
    return this.#json(`/v1/sessions${query({ ...filter })}`, { signal });
  }
  createSession(body: wire.CreateSession, idempotencyKey: string): Promise<wire.CreatedSession> {
    return this.#json("/v1/sessions", { method: "POST", body, idempotencyKey });
  }
  /** New sessions with this one's files and conversation. */
  forkSession(
    id: string,
    body: wire.ForkSession,
    idempotencyKey: string,
  ): Promise<wire.ForkedSession> {
    return this.#json(`/v1/sessions/${segment(id)}/forks`, { method: "POST", body, idempotencyKey });
  }
  session(id: string, signal?: AbortSignal): Promise<wire.Session> {
    return this.#json(`/v1/sessions/${segment(id)}`, { signal });
  }
  events(id: string, after: number, limit = 500): Promise<wire.EventPage> {
    return this.#json(`/v1/sessions/${segment(id)}/events${query({ after, limit })}`, {});
  }
  /** What came up to event `before`, back to the overview before it. */
  history(id: string, before: number, signal?: AbortSignal): Promise<wire.History> {
    return this.#json(`/v1/sessions/${segment(id)}/history${query({ before })}`, { signal });
  }
  /** The key makes sending again safe: the same key and body is answered with the first receipt. */
  sendPrompt(
    sessionId: string,
    body: wire.SendPrompt,
    idempotencyKey: string,
  ): Promise<wire.PromptReceipt> {
    return this.#json(`/v1/sessions/${segment(sessionId)}/prompts`, {
      method: "POST",
      body,
      idempotencyKey,
    });
  }
  async cancelPrompt(sessionId: string, promptId: string): Promise<void> {
    await this.#send(`/v1/sessions/${segment(sessionId)}/prompts/${segment(promptId)}`, {
      method: "DELETE",
    });
  }
  /** Of a prompt that waits: what it says, how many wait before it, or when the agent is told it. */
  async changePrompt(
    sessionId: string,
    promptId: string,
    change: wire.ChangePrompt,
  ): Promise<void> {
    await this.#send(`/v1/sessions/${segment(sessionId)}/prompts/${segment(promptId)}`, {
      method: "PATCH",
      body: change,
    });
  }
  retryEffect(id: string, effectKey: string): Promise<wire.Session> {
    return this.#json(`/v1/sessions/${segment(id)}/effect-retries`, {
      method: "POST",
      body: { effect_key: effectKey },
    });
  }
  updateSession(id: string, change: wire.UpdateSession): Promise<wire.Session> {
    return this.#json(`/v1/sessions/${segment(id)}`, { method: "PATCH", body: change });
  }
  /** Only an archived one; it does not come back. */
  async deleteSession(id: string): Promise<void> {
    await this.#send(`/v1/sessions/${segment(id)}`, { method: "DELETE" });
  }
  /** What waits begins then, unless its queue is paused. */
  stop(sessionId: string, pausesQueue = false): Promise<wire.Session> {
    return this.#json(
      `/v1/sessions/${segment(sessionId)}/stop${query({ pauses_queue: String(pausesQueue) })}`,
      { method: "POST" },
    );
  }
  /** As pushed; `live`: as the files in the sandbox are now, if it runs. */
  sessionDiff(sessionId: string, live = false, signal?: AbortSignal): Promise<wire.SessionDiff> {
    return this.#json(`/v1/sessions/${segment(sessionId)}/diff${query({ live: String(live) })}`, {
      signal,
    });
  }

  pullRequests(filter: PullRequestFilter = {}, signal?: AbortSignal): Promise<wire.PullRequestList> {
    return this.#json(`/v1/pull-requests${query({ ...filter })}`, { signal });
  }
  openPullRequest(repository: string, body: wire.OpenPullRequest): Promise<wire.PullRequest> {
    return this.#json(`/v1/repositories/${segment(repository)}/pull-requests`, {
      method: "POST",
      body,
    });
  }
  pullRequest(repository: string, number: number, signal?: AbortSignal): Promise<wire.PullRequest> {
    return this.#json(pullRequestPath(repository, number), { signal });
  }
  commits(repository: string, number: number, signal?: AbortSignal): Promise<wire.CommitList> {
    return this.#json(`${pullRequestPath(repository, number)}/commits`, { signal });
  }
  pullRequestDiff(repository: string, number: number, signal?: AbortSignal): Promise<wire.Diff> {
    return this.#json(`${pullRequestPath(repository, number)}/diff`, { signal });
  }
  addComment(repository: string, number: number, body: wire.AddComment): Promise<wire.PullRequest> {
    return this.#json(`${pullRequestPath(repository, number)}/comments`, { method: "POST", body });
  }
  addReview(repository: string, number: number, body: wire.AddReview): Promise<wire.PullRequest> {
    return this.#json(`${pullRequestPath(repository, number)}/reviews`, { method: "POST", body });
  }
  merge(repository: string, number: number, body: wire.MergePullRequest): Promise<wire.PullRequest> {
    return this.#json(`${pullRequestPath(repository, number)}/merge`, { method: "POST", body });
  }
  closePullRequest(repository: string, number: number): Promise<wire.PullRequest> {
    return this.#json(`${pullRequestPath(repository, number)}/close`, { method: "POST" });
  }
  reopenPullRequest(repository: string, number: number): Promise<wire.PullRequest> {
    return this.#json(`${pullRequestPath(repository, number)}/reopen`, { method: "POST" });
  }
  deleteHeadBranch(repository: string, number: number): Promise<wire.PullRequest> {
    return this.#json(`${pullRequestPath(repository, number)}/head-branch`, { method: "DELETE" });
  }

  async #json<T>(path: string, options: RequestOptions): Promise<T> {
    const response = await this.#send(path, options);
    return (await response.json()) as T;
  }

  async #send(path: string, options: RequestOptions): Promise<Response> {
    const headers: Record<string, string> = { accept: "application/json" };
    if (options.body !== undefined) headers["content-type"] = "application/json";
    // A repetition by whatever lies between is answered like the first.
    if ((options.method ?? "GET") !== "GET") {
      headers["idempotency-key"] = options.idempotencyKey ?? freshIdempotencyKey();
    }
    if (this.#token !== undefined) headers["authorization"] = `Bearer ${this.#token}`;
    let response: Response;
    try {
      response = await this.#fetch(this.#baseUrl + path, {
        method: options.method ?? "GET",
        headers,
        credentials: this.#token === undefined ? "same-origin" : "omit",
        ...(options.body === undefined ? {} : { body: JSON.stringify(options.body) }),
        ...(options.signal === undefined ? {} : { signal: options.signal }),
      });
    } catch (cause) {
      // An aborted request is the caller's own wish, not a problem of the server.
      if (options.signal?.aborted === true) throw cause;
      throw new ProblemError(
        {
          code: "unreachable",
          message: "The server did not answer.",
          hint: "Check that greenroom is running and that this device is online.",
          retryable: true,
        },
        0,
        { cause },
      );
    }
    if (!response.ok) {
      throw new ProblemError(parseProblem(response.status, await response.text()), response.status);
    }
    return response;
  }
}

function pullRequestPath(repository: string, number: number): string {
  return `/v1/repositories/${segment(repository)}/pull-requests/${String(number)}`;
}
