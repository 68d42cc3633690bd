// Repositories of the built-in forge.
import { problemOf } from "@greenroom/sdk";
import { Link } from "@tanstack/react-router";
import { useState } from "react";
import { usePageTitle } from "../layout/page-title.ts";
import { AddRepositoryDialog } from "../layout/add-repository-dialog.tsx";
import { useRepositories } from "../queries.ts";
import { Button, buttonClass } from "../ui/button.tsx";
import { Icon } from "../ui/icon.tsx";
import { EmptyState, ProblemNotice, SkeletonRows } from "../ui/notice.tsx";

export function RepositoriesPage() {
  usePageTitle("Repositories");
  const repositories = useRepositories();
  const [isAdding, setAdding] = useState(false);
  const add = (
    <Button
      look="secondary"
      onClick={() => {
        setAdding(true);
      }}
    >
      <Icon name="plus" />
      Add repository
    </Button>
  );
  return (
    <div className="mx-auto w-full max-w-5xl px-3 py-6 sm:px-6">
      <div className="mb-3 flex items-center justify-between">
        <h1 className="text-lg font-semibold">Repositories</h1>
        {add}
      </div>
      {repositories.error !== null && (
        <div className="mb-3">
          <ProblemNotice
            problem={problemOf(repositories.error)}
            title="Repositories could not be loaded"
          />
        </div>
      )}
      <div className="overflow-hidden rounded-lg border border-line bg-surface">
        {repositories.isPending && <SkeletonRows count={3} />}
        {repositories.data?.length === 0 && (
          <EmptyState icon="repository" title="No repositories yet">
            Add one from a folder on the server or from an https address. Sessions work on it and
            open pull requests here.
          </EmptyState>
        )}
        {repositories.data !== undefined && repositories.data.length > 0 && (
          <ul className="divide-y divide-line">
            {repositories.data.map((repository) => (
              <li key={repository.name} className="flex flex-wrap items-center gap-x-4 gap-y-2 px-4 py-3">
                <Icon name="repository" className="text-muted" />
                <div className="min-w-0 flex-1">
                  <h2 className="font-medium">{repository.name}</h2>
                  <p className="mt-0.5 flex items-center gap-1 text-xs text-muted">
                    {repository.default_branch == null ? (
                      "empty"
                    ) : (
                      <>
                        <Icon name="branch" className="size-3" />
                        {repository.default_branch}
                      </>
                    )}
                  </p>
                </div>
                <code className="min-w-0 truncate rounded border border-line bg-sunken px-2 py-1 font-mono text-xs max-sm:order-last max-sm:w-full">
                  {repository.clone_url}
                </code>
                <Link
                  to="/repositories/$repository/images"
                  params={{ repository: repository.name }}
                  className={buttonClass("quiet")}
                  aria-label={`Images of ${repository.name}`}
                >
                  Images
                </Link>
                <Link
                  to="/new"
                  search={{ repository: repository.name }}
                  className={buttonClass("secondary")}
                  aria-label={`New session on ${repository.name}`}
                >
                  New session
                </Link>
              </li>
            ))}
          </ul>
        )}
      </div>
      <AddRepositoryDialog
        isOpen={isAdding}
        onClose={() => {
          setAdding(false);
        }}
        onAdded={() => {
          setAdding(false);
        }}
      />
    </div>
  );
}
