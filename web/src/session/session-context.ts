// What entries deep in a transcript know of their session.
import { EMPTY_SESSION_VIEW, type GreenroomClient, type Role, type SessionView } from "@greenroom/sdk";
import { createContext } from "react";
import { client } from "../api.ts";

export interface SessionFacts {
  /** As whom the session is read: somebody who is signed in, or whoever has a link. */
  readonly by: GreenroomClient;
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
  by: client,
  sessionId: "",
  failedEffects: EMPTY_SESSION_VIEW.failedEffects,
  role: null,
});
