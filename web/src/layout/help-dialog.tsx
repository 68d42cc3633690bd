// Lists the keys.
import { Dialog } from "../ui/dialog.tsx";

const KEYS = [
  ["n", "New session"],
  ["g", "Sessions"],
  ["p", "Pull requests"],
  ["r", "Repositories"],
  ["/", "Write in the prompt box"],
  ["Ctrl Enter", "Send the prompt (⌘ Enter on a Mac)"],
  ["Esc Esc", "Stop the running turn"],
  ["?", "This list"],
] as const;

export function HelpDialog({ isOpen, onClose }: { isOpen: boolean; onClose: () => void }) {
  return (
    <Dialog
      isOpen={isOpen}
      onClose={onClose}
      title="Keyboard"
      description="Single keys work while you are not typing."
    >
      <dl className="grid gap-2">
        {KEYS.map(([keys, meaning]) => (
          <div key={keys} className="flex items-center justify-between gap-4">
            <dt className="order-2 flex gap-1">
              {keys.split(" ").map((key, index) => (
                <kbd
                  key={index}
                  className="min-w-6 rounded border border-line-strong bg-sunken px-1.5 py-0.5 text-center font-mono text-xs"
                >
                  {key}
                </kbd>
              ))}
            </dt>
            <dd className="text-[13px]">{meaning}</dd>
          </div>
        ))}
      </dl>
    </Dialog>
  );
}
