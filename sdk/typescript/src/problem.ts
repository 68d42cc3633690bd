// Failures of requests as one error class that carries the server's problem document. Must not do I/O.
import type { Problem } from "./wire.ts";

/** Thrown by every method of the client: what the server said, or `unreachable` when nothing answered. */
export class ProblemError extends Error {
  readonly problem: Problem;
  /** HTTP status; 0 when no answer came. */
  readonly status: number;

  constructor(problem: Problem, status: number, options?: ErrorOptions) {
    super(problem.message, options);
    this.name = "ProblemError";
    this.problem = problem;
    this.status = status;
  }

  get code(): string {
    return this.problem.code;
  }
}

/** The problem to show for anything that was thrown. */
export function problemOf(error: unknown): Problem {
  if (error instanceof ProblemError) return error.problem;
  return {
    code: "client_failure",
    message: "Something went wrong in this page.",
    hint: error instanceof Error ? error.message : "Reload the page.",
    retryable: false,
  };
}

function isProblem(value: unknown): value is Problem {
  return (
    typeof value === "object" &&
    value !== null &&
    typeof (value as Problem).code === "string" &&
    typeof (value as Problem).message === "string"
  );
}

/** Reads the problem document of a failed answer; proxies may answer with something else, which gets a code of its own. */
export function parseProblem(status: number, body: string): Problem {
  try {
    const value: unknown = JSON.parse(body);
    if (isProblem(value)) return value;
  } catch {
    // Not JSON: an answer of something between us and the server.
  }
  return {
    code: `http_${String(status)}`,
    message: `The server answered with status ${String(status)}.`,
    retryable: status === 429 || status >= 500,
  };
}
