// Single-key shortcuts of the whole app. They stay quiet while someone types or a dialog is open.
import { useEffect } from "react";

/** Whether a key press belongs to a control instead of the page. */
function isForControl(event: KeyboardEvent): boolean {
  if (event.ctrlKey || event.metaKey || event.altKey || event.defaultPrevented) return true;
  const target = event.target;
  if (!(target instanceof HTMLElement)) return false;
  if (target.isContentEditable) return true;
  return target.closest("input, textarea, select, [role=dialog], [role=menu]") !== null;
}

/** Runs what belongs to a key, such as `{ n: openNew }`. */
export function useShortcuts(shortcuts: Record<string, () => void>): void {
  useEffect(() => {
    const listen = (event: KeyboardEvent) => {
      const run = shortcuts[event.key];
      if (run === undefined || isForControl(event)) return;
      event.preventDefault();
      run();
    };
    window.addEventListener("keydown", listen);
    return () => {
      window.removeEventListener("keydown", listen);
    };
  }, [shortcuts]);
}

/** Moves focus to the prompt box of the page, if it has one. */
export function focusComposer(): void {
  document.querySelector<HTMLElement>("[data-composer]")?.focus();
}
