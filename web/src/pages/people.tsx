// Who may use this server. Owners let people in and take them out.
import { problemOf, type Account } from "@greenroom/sdk";
import { useState } from "react";
import { usePageTitle } from "../layout/page-title.ts";
import { useAddPerson, useMe, usePeople, usePersonCommand, useSignInLinkFor } from "../queries.ts";
import { Avatar, Badge } from "../ui/badge.tsx";
import { Button } from "../ui/button.tsx";
import { CopyField } from "../ui/copy-field.tsx";
import { TextField } from "../ui/field.tsx";
import { Icon } from "../ui/icon.tsx";
import { ProblemNotice, SkeletonRows } from "../ui/notice.tsx";

export function PeoplePage() {
  usePageTitle("People");
  const people = usePeople();
  const me = useMe().data;
  const isOwner = me?.is_owner === true;
  return (
    <div className="mx-auto grid w-full max-w-3xl content-start gap-5 px-3 py-5 sm:px-6">
      <div>
        <h1 className="text-lg font-semibold">People</h1>
        <p className="mt-0.5 text-[13px] text-muted">
          Everybody here may use this server.{" "}
          {isOwner ? "You are one of its owners." : "Its owners let people in."}
        </p>
      </div>
      {isOwner && <AddPerson />}
      {people.error !== null && <ProblemNotice problem={problemOf(people.error)} />}
      {people.data === undefined ? (
        <SkeletonRows count={3} />
      ) : (
        <ul className="divide-y divide-line rounded-lg border border-line bg-surface">
          {people.data.map((account) => (
            <Person
              key={account.id}
              account={account}
              isMe={account.id === me?.id}
              isManaged={isOwner}
            />
          ))}
        </ul>
      )}
    </div>
  );
}

function Person({
  account,
  isMe,
  isManaged,
}: {
  account: Account;
  isMe: boolean;
  isManaged: boolean;
}) {
  const command = usePersonCommand();
  const link = useSignInLinkFor();
  const [isLeaving, setLeaving] = useState(false);
  const failure = command.error ?? link.error;
  return (
    <li className="grid gap-3 px-3 py-3 sm:px-4">
      <div className="flex flex-wrap items-center gap-x-3 gap-y-2">
        <Avatar person={account} />
        <div className="min-w-40 flex-1">
          <p className="flex items-center gap-2 text-[13px] font-medium">
            <span className="truncate">{account.name}</span>
            {isMe && <span className="font-normal text-muted">you</span>}
            {account.is_owner && <Badge tone="info">owner</Badge>}
          </p>
          <p className="truncate text-xs text-muted">{account.email}</p>
        </div>
        {isManaged && !isMe && (
          <div className="flex flex-wrap gap-2">
            <Button
              disabled={link.isPending}
              onClick={() => {
                link.mutate(account.id);
              }}
            >
              <Icon name="link" />
              Sign-in link
            </Button>
            <Button
              disabled={command.isPending}
              onClick={() => {
                command.mutate({ act: "set_owner", id: account.id, isOwner: !account.is_owner });
              }}
            >
              {account.is_owner ? "No longer owner" : "Make owner"}
            </Button>
            <Button
              look="danger"
              disabled={command.isPending}
              onClick={() => {
                setLeaving(true);
              }}
            >
              Remove
            </Button>
          </div>
        )}
      </div>
      {link.data !== undefined && (
        <CopyField label={`Signs ${account.name} in once, within a day`} text={link.data.url} />
      )}
      {isLeaving && (
        <div
          role="alert"
          className="grid gap-2 rounded-md border border-line bg-sunken p-3 text-[13px]"
        >
          <p>
            What {account.name} has open ends at once, and what they asked for is not done further.
            What they did stays, with their name.
          </p>
          <div className="flex justify-end gap-2">
            <Button
              onClick={() => {
                setLeaving(false);
              }}
            >
              Cancel
            </Button>
            <Button
              look="danger"
              disabled={command.isPending}
              onClick={() => {
                setLeaving(false);
                command.mutate({ act: "remove", id: account.id });
              }}
            >
              Remove {account.name}
            </Button>
          </div>
        </div>
      )}
      {failure !== null && <ProblemNotice problem={problemOf(failure)} />}
    </li>
  );
}

function AddPerson() {
  const add = useAddPerson();
  const [name, setName] = useState("");
  const [email, setEmail] = useState("");
  return (
    <form
      aria-label="Add a person"
      className="grid gap-3 rounded-lg border border-line bg-surface p-3 sm:p-4"
      onSubmit={(event) => {
        event.preventDefault();
        add.mutate(
          { name: name.trim(), email: email.trim(), is_owner: false },
          {
            onSuccess: () => {
              setName("");
              setEmail("");
            },
          },
        );
      }}
    >
      <div className="grid items-end gap-3 sm:grid-cols-[1fr_1fr_auto]">
        <TextField
          label="Name"
          value={name}
          required
          autoComplete="off"
          onChange={(event) => {
            setName(event.target.value);
          }}
        />
        <TextField
          label="Email"
          type="email"
          value={email}
          required
          autoComplete="off"
          onChange={(event) => {
            setEmail(event.target.value);
          }}
        />
        <Button type="submit" look="primary" className="h-9" disabled={add.isPending}>
          <Icon name="plus" />
          Add
        </Button>
      </div>
      <p className="text-xs text-muted">Prompts and commits carry this name and address.</p>
      {add.data !== undefined && (
        <CopyField
          label={`Signs ${add.data.person.name} in once, within a day. Shown this once.`}
          text={add.data.sign_in.url}
        />
      )}
      {add.error !== null && <ProblemNotice problem={problemOf(add.error)} />}
    </form>
  );
}
