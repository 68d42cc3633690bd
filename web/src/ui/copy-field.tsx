// A text that is shown once and wants to be copied, such as a link with a secret.
import { useId, useState } from "react";
import { Button } from "./button.tsx";
import { Icon } from "./icon.tsx";

export function CopyField({ label, text }: { label: string; text: string }) {
  const id = useId();
  const [isCopied, setCopied] = useState(false);
  return (
    <div className="grid gap-1">
      <label htmlFor={id} className="text-[13px] font-medium">
        {label}
      </label>
      <div className="flex gap-2">
        <input
          id={id}
          readOnly
          value={text}
          className="h-8 w-full min-w-0 rounded-md border border-line-strong bg-sunken px-2.5 font-mono text-xs text-text"
          onFocus={(event) => {
            event.target.select();
          }}
        />
        <Button
          onClick={() => {
            // Without leave to write there, the text can still be selected.
            navigator.clipboard.writeText(text).then(
              () => {
                setCopied(true);
              },
              () => undefined,
            );
          }}
        >
          <Icon name={isCopied ? "check" : "link"} />
          {isCopied ? "Copied" : "Copy"}
        </Button>
      </div>
    </div>
  );
}
