// Unsent prompt texts that survive a reload. Kept per place in this tab's storage, never sent anywhere.
import { useState } from "react";

function read(key: string): string {
  try {
    return sessionStorage.getItem(key) ?? "";
  } catch {
    return "";
  }
}

/** A text state that comes back after a reload of the tab. */
export function useDraft(place: string): [string, (text: string) => void] {
  const key = `greenroom.draft.${place}`;
  const [text, setText] = useState(() => read(key));
  const change = (next: string) => {
    setText(next);
    try {
      if (next === "") sessionStorage.removeItem(key);
      else sessionStorage.setItem(key, next);
    } catch {
      // Storage is switched off or full: the text lives in the page alone.
    }
  };
  return [text, change];
}
