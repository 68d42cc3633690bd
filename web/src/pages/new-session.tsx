// Starts a session: which repository, where from, which model, and what to do.
import { problemOf, type ImageAttachment } from "@greenroom/sdk";
import { getRouteApi, useNavigate } from "@tanstack/react-router";
import { useState } from "react";
import { useDraft } from "../draft.ts";
import { AddRepositoryDialog } from "../layout/add-repository-dialog.tsx";
import { usePageTitle } from "../layout/page-title.ts";
import { useBranches, useCreateSession, useModels, useRepositories, useTyping } from "../queries.ts";
import { PromptBox } from "../session/prompt-box.tsx";
import { Button } from "../ui/button.tsx";
import { SelectField } from "../ui/field.tsx";
import { Icon } from "../ui/icon.tsx";
import { EmptyState, ProblemNotice } from "../ui/notice.tsx";

const route = getRouteApi("/app/new");

export function NewSessionPage() {
  usePageTitle("New session");
  const navigate = useNavigate();
  const search = route.useSearch();
  const repositories = useRepositories();
  const models = useModels();
  const create = useCreateSession();
  const [pickedRepository, setPickedRepository] = useState(search.repository ?? "");
  const [pickedBranch, setPickedBranch] = useState("");
  const [pickedModel, setPickedModel] = useState("");
  const [text, setText] = useDraft("new");
  const [images, setImages] = useState<ImageAttachment[]>([]);
  const [isAdding, setAdding] = useState(false);

  const known = repositories.data ?? [];
  const repository =
    known.find((entry) => entry.name === pickedRepository) ??
    known.find((entry) => entry.default_branch != null) ??
    known[0];
  const tellTyping = useTyping(repository?.default_branch == null ? "" : repository.name);
  const branches = useBranches(repository?.name ?? "");
  const branch = pickedBranch === "" ? (repository?.default_branch ?? "") : pickedBranch;
  const model =
    models.data?.find((entry) => entry.id === pickedModel) ??
    models.data?.find((entry) => entry.is_default) ??
    models.data?.[0];
  const canSend = repository !== undefined && text.trim() !== "" && !create.isPending;

  const send = () => {
    if (!canSend) return;
    create.mutate(
      {
        repository: repository.name,
        prompt: text,
        ...(branch === "" ? {} : { base_branch: branch }),
        ...(model === undefined ? {} : { model: model.id }),
        ...(images.length === 0 ? {} : { images }),
      },
      {
        onSuccess: (created) => {
          setText("");
          void navigate({
            to: "/sessions/$sessionId",
            params: { sessionId: created.session.id },
          });
        },
      },
    );
  };
  const failure = create.error ?? repositories.error ?? models.error;

  return (
    <div className="mx-auto grid w-full max-w-3xl gap-4 px-3 py-6 sm:px-6 sm:pt-[10vh]">
      <h1 className="text-xl font-semibold">What should change?</h1>
      <PromptBox
        label="Prompt"
        placeholder="Describe the task as you would to a colleague. Name files, tests or errors if you know them."
        text={text}
        onText={(typed) => {
          setText(typed);
          if (typed.trim() !== "") tellTyping();
        }}
        images={images}
        onImages={setImages}
        onSend={send}
        rows={6}
        isAutoFocused
        actions={
          <>
            <span className="text-xs text-muted max-sm:hidden">Ctrl Enter</span>
            <Button look="primary" disabled={!canSend} onClick={send}>
              {create.isPending ? "Starting…" : "Start session"}
            </Button>
          </>
        }
      />
      {failure !== null && <ProblemNotice problem={problemOf(failure)} />}
      {repositories.data?.length === 0 ? (
        <EmptyState
          icon="repository"
          title="No repository yet"
          action={
            <Button
              look="primary"
              onClick={() => {
                setAdding(true);
              }}
            >
              Add repository
            </Button>
          }
        >
          A session works on a repository. Add one from a folder on the server or from an https
          address.
        </EmptyState>
      ) : (
        <div className="grid gap-3 sm:grid-cols-3">
          <SelectField
            label="Repository"
            value={repository?.name ?? ""}
            disabled={repositories.isPending}
            onChange={(event) => {
              setPickedRepository(event.target.value);
              setPickedBranch("");
            }}
            hint={
              <button
                type="button"
                className="inline-flex items-center gap-1 rounded py-1 font-medium text-accent hover:underline"
                onClick={() => {
                  setAdding(true);
                }}
              >
                <Icon name="plus" className="size-3" />
                Add repository
              </button>
            }
          >
            {known.map((entry) => (
              <option key={entry.name} value={entry.name}>
                {entry.name}
                {entry.default_branch == null ? " (empty)" : ""}
              </option>
            ))}
          </SelectField>
          <SelectField
            label="Base branch"
            value={branch}
            disabled={branches.data === undefined}
            onChange={(event) => {
              setPickedBranch(event.target.value);
            }}
          >
            {(branches.data ?? []).map((entry) => (
              <option key={entry.name} value={entry.name}>
                {entry.name}
              </option>
            ))}
          </SelectField>
          <SelectField
            label="Model"
            value={model?.id ?? ""}
            disabled={models.isPending}
            onChange={(event) => {
              setPickedModel(event.target.value);
            }}
            hint={
              model?.is_scripted === true
                ? "Plays a fixed script instead of thinking. Set a model key on the server for real work."
                : undefined
            }
          >
            {(models.data ?? []).map((entry) => (
              <option key={entry.id} value={entry.id}>
                {entry.label}
              </option>
            ))}
          </SelectField>
        </div>
      )}
      <AddRepositoryDialog
        isOpen={isAdding}
        onClose={() => {
          setAdding(false);
        }}
        onAdded={(name) => {
          setAdding(false);
          setPickedRepository(name);
          setPickedBranch("");
        }}
      />
    </div>
  );
}
