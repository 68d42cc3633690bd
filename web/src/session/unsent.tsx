// Prompts that were sent and are not in the session yet: as they will look, and what became of them if they did not arrive.
import type { Person } from "@greenroom/sdk";
import { Button } from "../ui/button.tsx";
import { ProblemNotice } from "../ui/notice.tsx";
import type { Outbox, UnsentPrompt } from "./outbox.ts";
import { PromptCard } from "./prompt-card.tsx";

export function Unsent({
  outbox,
  unsent,
  me,
  onEdit,
}: {
  outbox: Outbox;
  unsent: readonly UnsentPrompt[];
  me: Person;
  /** Puts one back into the composer. */
  onEdit: (prompt: UnsentPrompt) => void;
}) {
  if (unsent.length === 0) return null;
  return (
    <ul aria-label="Prompts on their way" className="mt-6 grid min-w-0 gap-4">
      {unsent.map((prompt) => (
        <li key={prompt.key} className="grid min-w-0 gap-2">
          <div className={prompt.problem === null ? "opacity-60" : ""}>
            <PromptCard
              prompt={{
                id: prompt.key,
                author: me,
                text: prompt.text,
                images: prompt.images,
                queued_at_ms: 0,
              }}
            />
          </div>
          <div className="sm:pl-9">
            {prompt.problem === null ? (
              <p role="status" className="text-xs text-muted">
                {prompt.seq === null ? "Sending…" : "Sent"}
              </p>
            ) : (
              <ProblemNotice problem={prompt.problem} title="Not sent">
                <div className="mt-2 flex flex-wrap gap-2">
                  {prompt.problem.code !== "images_lost" && (
                    <Button
                      onClick={() => {
                        outbox.sendAgain(prompt.key);
                      }}
                    >
                      Send again
                    </Button>
                  )}
                  <Button
                    look="quiet"
                    onClick={() => {
                      onEdit(prompt);
                    }}
                  >
                    Edit
                  </Button>
                  <Button
                    look="quiet"
                    onClick={() => {
                      outbox.discard(prompt.key);
                    }}
                  >
                    Discard
                  </Button>
                </div>
              </ProblemNotice>
            )}
          </div>
        </li>
      ))}
    </ul>
  );
}
