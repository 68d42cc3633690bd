// What entries deep in a transcript know of their session.
import { EMPTY_SESSION_VIEW, type Role, type SessionView } from "@greenroom/sdk";
import { createContext } from "react";

export interface SessionFacts {
  readonly sessionId: string;
  readonly failedEffects: SessionView["failedEffects"];
  /** What whoever looks may do; null: nobody is signed in, and they only watch. */
  readonly role: Role | null;
}

/** Whether somebody with this role may prompt and steer. */
export function maySteer(role: Role | null): boolean {
  return role === "owner" || role === "editor";
}

export const SessionContext = createContext<SessionFacts>({
  sessionId: "",
  failedEffects: EMPTY_SESSION_VIEW.failedEffects,
  role: null,
});
