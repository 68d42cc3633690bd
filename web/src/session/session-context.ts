// What entries deep in a transcript know of their session.
import { EMPTY_SESSION_VIEW, type SessionView } from "@greenroom/sdk";
import { createContext } from "react";

export interface SessionFacts {
  readonly sessionId: string;
  readonly failedEffects: SessionView["failedEffects"];
}

export const SessionContext = createContext<SessionFacts>({
  sessionId: "",
  failedEffects: EMPTY_SESSION_VIEW.failedEffects,
});
