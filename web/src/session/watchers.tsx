// Who else looks at a session, and who writes a prompt.
import type { Presence, Watcher } from "@greenroom/sdk";
import { Avatar } from "../ui/badge.tsx";

/** Faces that fit beside the tabs of a phone. */
const SHOWN = 3;

function others(presence: Presence, meId: string | null): readonly Watcher[] {
  return presence.watching.filter((watcher) => watcher.person.id !== meId);
}

export function Watchers({ presence, meId }: { presence: Presence; meId: string | null }) {
  const watching = others(presence, meId);
  const more = watching.length - SHOWN + presence.guests;
  if (watching.length + presence.guests === 0) return null;
  const names = [
    ...watching.map((watcher) => watcher.person.name + (watcher.is_away ? " (away)" : "")),
    ...(presence.guests === 0
      ? []
      : [presence.guests === 1 ? "a guest" : `${String(presence.guests)} guests`]),
  ].join(", ");
  const hidden = watching.length > SHOWN ? more : presence.guests;
  return (
    <div role="group" aria-label={`Watching: ${names}`} title={names} className="mr-1 flex -space-x-1.5">
      {watching.slice(0, SHOWN).map((watcher) => (
        <span
          key={watcher.person.id}
          className={`rounded-full ring-2 ring-canvas ${watcher.is_away ? "opacity-50" : ""}`}
        >
          <Avatar person={watcher.person} />
        </span>
      ))}
      {hidden > 0 && (
        <span className="grid size-6 place-items-center rounded-full bg-sunken text-[10px] font-semibold text-muted ring-2 ring-canvas">
          +{hidden}
        </span>
      )}
    </div>
  );
}

export function TypingLine({ presence, meId }: { presence: Presence; meId: string | null }) {
  const writing = others(presence, meId).filter((watcher) => watcher.draft != null);
  const [one, two] = writing;
  if (one === undefined) return null;
  const text =
    two === undefined
      ? `${one.person.name} writes a prompt`
      : writing.length === 2
        ? `${one.person.name} and ${two.person.name} write prompts`
        : `${String(writing.length)} people write prompts`;
  return (
    <p role="status" className="flex items-center gap-2 text-xs text-muted">
      <span aria-hidden="true" className="flex gap-0.5">
        {[0, 1, 2].map((dot) => (
          <span
            key={dot}
            className="size-1 animate-pulse rounded-full bg-muted motion-reduce:animate-none"
            style={{ animationDelay: `${String(dot * 160)}ms` }}
          />
        ))}
      </span>
      {text}
    </p>
  );
}
