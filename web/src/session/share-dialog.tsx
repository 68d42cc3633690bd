// Who may do what in a session: members, everybody else of the server, and links that let somebody in.
import {
  problemOf,
  type LinkKind,
  type Member,
  type Role,
  type SessionAccess,
  type SessionView,
} from "@greenroom/sdk";
import { useState } from "react";
import {
  useCreateLink,
  useLinks,
  useMe,
  usePeople,
  useRevokeLink,
  useSetMember,
  useUpdateSession,
} from "../queries.ts";
import { Avatar } from "../ui/badge.tsx";
import { Button, IconButton } from "../ui/button.tsx";
import { CopyField } from "../ui/copy-field.tsx";
import { Dialog } from "../ui/dialog.tsx";
import { Select, SelectField } from "../ui/field.tsx";
import { Icon } from "../ui/icon.tsx";
import { ProblemNotice } from "../ui/notice.tsx";

export function ShareDialog({
  view,
  role,
  isOpen,
  onClose,
}: {
  view: SessionView;
  role: Role;
  isOpen: boolean;
  onClose: () => void;
}) {
  return (
    <Dialog
      isOpen={isOpen}
      onClose={onClose}
      title={role === "owner" ? "Share session" : "People in this session"}
      description={
        role === "owner"
          ? "Viewers watch; editors also prompt, stop and work in the sandbox."
          : `${view.members[0]?.person.name ?? "Its owner"} says who may do what here.`
      }
    >
      <div className="grid gap-5">
        <Members view={view} role={role} onLeft={onClose} />
        {role === "owner" && (
          <>
            <Everybody view={view} />
            <Links sessionId={view.id} />
          </>
        )}
      </div>
    </Dialog>
  );
}

const ROLE_NAMES: Record<Role, string> = { viewer: "Viewer", editor: "Editor", owner: "Owner" };

function Members({ view, role, onLeft }: { view: SessionView; role: Role; onLeft: () => void }) {
  const me = useMe().data;
  const set = useSetMember(view.id);
  const [heir, setHeir] = useState<Member | null>(null);
  return (
    <section aria-label="Members" className="grid gap-2">
      <ul className="grid gap-1">
        {view.members.map((member) => (
          <li key={member.person.id} className="flex min-h-8 items-center gap-2 text-[13px]">
            <Avatar person={member.person} />
            <span className="min-w-0 flex-1 truncate">
              {member.person.name}
              {member.person.id === me?.id && <span className="text-muted"> (you)</span>}
            </span>
            {role === "owner" && member.role !== "owner" ? (
              <>
                <Select
                  aria-label={`Role of ${member.person.name}`}
                  className="w-28"
                  value={member.role}
                  disabled={set.isPending}
                  onChange={(event) => {
                    const chosen = event.target.value as Role;
                    if (chosen === "owner") setHeir(member);
                    else set.mutate({ personId: member.person.id, role: chosen });
                  }}
                >
                  <option value="viewer">Viewer</option>
                  <option value="editor">Editor</option>
                  <option value="owner">Make owner…</option>
                </Select>
                <IconButton
                  label={`Remove ${member.person.name}`}
                  disabled={set.isPending}
                  onClick={() => {
                    set.mutate({ personId: member.person.id, role: null });
                  }}
                >
                  <Icon name="close" />
                </IconButton>
              </>
            ) : (
              <span className="text-muted">{ROLE_NAMES[member.role]}</span>
            )}
            {role !== "owner" && member.person.id === me?.id && (
              <Button
                className="h-7 px-2"
                disabled={set.isPending}
                onClick={() => {
                  set.mutate({ personId: member.person.id, role: null }, { onSuccess: onLeft });
                }}
              >
                Leave
              </Button>
            )}
          </li>
        ))}
      </ul>
      {heir !== null && (
        <div role="alert" className="grid gap-2 rounded-md border border-line bg-sunken p-3 text-[13px]">
          <p>
            {heir.person.name} then says who may do what here. {view.members[0]?.person.name} stays
            an editor.
          </p>
          <div className="flex justify-end gap-2">
            <Button
              onClick={() => {
                setHeir(null);
              }}
            >
              Cancel
            </Button>
            <Button
              look="primary"
              disabled={set.isPending}
              onClick={() => {
                set.mutate(
                  { personId: heir.person.id, role: "owner" },
                  {
                    onSuccess: () => {
                      setHeir(null);
                    },
                  },
                );
              }}
            >
              Hand over
            </Button>
          </div>
        </div>
      )}
      {role === "owner" && <AddMember view={view} />}
      {set.error !== null && <ProblemNotice problem={problemOf(set.error)} />}
    </section>
  );
}

function AddMember({ view }: { view: SessionView }) {
  const people = usePeople().data ?? [];
  const set = useSetMember(view.id);
  const others = people.filter(
    (person) => !view.members.some((member) => member.person.id === person.id),
  );
  if (others.length === 0) {
    return (
      <p className="text-xs text-muted">
        {people.length <= 1
          ? "Nobody else uses this server yet. Its owner can add people."
          : "Everybody on this server is a member."}
      </p>
    );
  }
  return (
    <>
      <Select
        aria-label="Add a member"
        value=""
        disabled={set.isPending}
        onChange={(event) => {
          if (event.target.value === "") return;
          set.mutate({ personId: event.target.value, role: "editor" });
        }}
      >
        <option value="">Add somebody…</option>
        {others.map((person) => (
          <option key={person.id} value={person.id}>
            {person.name} ({person.email})
          </option>
        ))}
      </Select>
      {set.error !== null && <ProblemNotice problem={problemOf(set.error)} />}
    </>
  );
}

function Everybody({ view }: { view: SessionView }) {
  const update = useUpdateSession(view.id);
  return (
    <div className="grid gap-2">
      <SelectField
        label="Everybody else on this server"
        value={view.access}
        disabled={update.isPending}
        onChange={(event) => {
          update.mutate({ access: event.target.value as SessionAccess });
        }}
      >
        <option value="members">does not see it</option>
        <option value="viewer">may watch</option>
        <option value="editor">may work in it</option>
      </SelectField>
      {update.error !== null && <ProblemNotice problem={problemOf(update.error)} />}
    </div>
  );
}

const DAY_SECONDS = 24 * 3600;
const LIFETIMES = [
  { seconds: 3600, label: "1 hour" },
  { seconds: DAY_SECONDS, label: "1 day" },
  { seconds: 7 * DAY_SECONDS, label: "1 week" },
  { seconds: 30 * DAY_SECONDS, label: "30 days" },
];

const LINK_CHOICES: readonly { value: string; kind: LinkKind; role: Role; label: string }[] = [
  { value: "invite-viewer", kind: "invite", role: "viewer", label: "joins as a viewer" },
  { value: "invite-editor", kind: "invite", role: "editor", label: "joins as an editor" },
  { value: "share", kind: "share", role: "viewer", label: "watches without signing in" },
];

function Links({ sessionId }: { sessionId: string }) {
  const links = useLinks(sessionId);
  const create = useCreateLink(sessionId);
  const revoke = useRevokeLink(sessionId);
  const [choice, setChoice] = useState("invite-viewer");
  const [seconds, setSeconds] = useState(7 * DAY_SECONDS);
  const chosen = LINK_CHOICES.find((known) => known.value === choice);
  const failure = create.error ?? revoke.error ?? links.error;
  return (
    <section aria-label="Links" className="grid gap-3 border-t border-line pt-4">
      <div className="grid grid-cols-[1fr_auto] items-end gap-2">
        <SelectField
          label="Whoever opens a link"
          value={choice}
          onChange={(event) => {
            setChoice(event.target.value);
          }}
        >
          {LINK_CHOICES.map(({ value, label }) => (
            <option key={value} value={value}>
              {label}
            </option>
          ))}
        </SelectField>
        <SelectField
          label="For"
          value={seconds}
          onChange={(event) => {
            setSeconds(Number(event.target.value));
          }}
        >
          {LIFETIMES.map((lifetime) => (
            <option key={lifetime.seconds} value={lifetime.seconds}>
              {lifetime.label}
            </option>
          ))}
        </SelectField>
      </div>
      <Button
        disabled={create.isPending || chosen === undefined}
        onClick={() => {
          if (chosen === undefined) return;
          create.mutate({ kind: chosen.kind, role: chosen.role, valid_for_seconds: seconds });
        }}
      >
        <Icon name="link" />
        Make a link
      </Button>
      {create.data !== undefined && (
        <CopyField label="Shown this once" text={create.data.url} />
      )}
      {failure !== null && <ProblemNotice problem={problemOf(failure)} />}
      <ul className="grid gap-1">
        {links.data?.map((link) => {
          const label = LINK_CHOICES.find(
            (known) => known.kind === link.kind && known.role === link.role,
          )?.label;
          const until = new Date(link.expires_at_ms).toLocaleString(undefined, {
            dateStyle: "medium",
            timeStyle: "short",
          });
          return (
            <li key={link.id} className="flex items-center gap-2 text-[13px]">
              <Icon name="link" className="text-muted" />
              <span className="min-w-0 flex-1">
                {label} <span className="text-muted">until {until}</span>
              </span>
              <Button
                className="h-7 px-2"
                disabled={revoke.isPending}
                onClick={() => {
                  revoke.mutate(link.id);
                }}
              >
                Revoke
              </Button>
            </li>
          );
        })}
      </ul>
    </section>
  );
}
