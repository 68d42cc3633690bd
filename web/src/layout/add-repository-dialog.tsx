// Adds a repository from a folder on the server, from an https address, or empty.
import { problemOf } from "@greenroom/sdk";
import { useState } from "react";
import { useAddRepository } from "../queries.ts";
import { Button } from "../ui/button.tsx";
import { Dialog } from "../ui/dialog.tsx";
import { TextField } from "../ui/field.tsx";
import { ProblemNotice } from "../ui/notice.tsx";
import { repositoryNameOf } from "./repository-name.ts";

export function AddRepositoryDialog({
  isOpen,
  onClose,
  onAdded,
}: {
  isOpen: boolean;
  onClose: () => void;
  onAdded: (name: string) => void;
}) {
  return (
    <Dialog
      isOpen={isOpen}
      onClose={onClose}
      title="Add repository"
      description="Branches and tags are copied to the built-in forge."
    >
      <AddRepositoryForm onAdded={onAdded} />
    </Dialog>
  );
}

function AddRepositoryForm({ onAdded }: { onAdded: (name: string) => void }) {
  const add = useAddRepository();
  const [source, setSource] = useState("");
  const [typedName, setTypedName] = useState<string | null>(null);
  const name = typedName ?? repositoryNameOf(source);
  return (
    <form
      className="grid gap-3"
      onSubmit={(event) => {
        event.preventDefault();
        add.mutate(
          { name, ...(source.trim() === "" ? {} : { source: source.trim() }) },
          {
            onSuccess: (repository) => {
              onAdded(repository.name);
            },
          },
        );
      }}
    >
      <TextField
        label="Path or address"
        value={source}
        placeholder="/srv/code/shop or https://example.com/shop.git"
        hint="A folder on the server's machine or an https address. Leave it blank for an empty repository."
        autoComplete="off"
        spellCheck={false}
        onChange={(event) => {
          setSource(event.target.value);
        }}
      />
      <TextField
        label="Name"
        value={name}
        required
        pattern="[a-z0-9][a-z0-9._\-]{0,99}"
        title="Lower-case letters, digits, dot, underscore and hyphen"
        autoComplete="off"
        spellCheck={false}
        onChange={(event) => {
          setTypedName(event.target.value);
        }}
      />
      {add.error !== null && <ProblemNotice problem={problemOf(add.error)} />}
      <div className="flex justify-end">
        <Button type="submit" look="primary" disabled={add.isPending || name === ""}>
          {add.isPending ? "Adding…" : "Add repository"}
        </Button>
      </div>
    </form>
  );
}
