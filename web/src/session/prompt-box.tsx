// Where a prompt is written: text, images by paste, drop or file, Ctrl or Command with Enter sends.
import type { ImageAttachment } from "@greenroom/sdk";
import { useId, useRef, useState, type ReactNode } from "react";
import { IconButton } from "../ui/button.tsx";
import { Icon } from "../ui/icon.tsx";
import { attachmentOf, IMAGE_TYPES, imageUrl, MAX_IMAGES, refusalOf } from "./images.ts";

const MAX_PROMPT_BYTES = 256 * 1024;

export interface PromptBoxProps {
  label: string;
  placeholder: string;
  text: string;
  onText: (text: string) => void;
  images: ImageAttachment[];
  onImages: (images: ImageAttachment[]) => void;
  onSend: () => void;
  /** Where its cursor is; null: nobody writes in it. */
  onCursor?: (at: number | null) => void;
  /** Lines shown before it grows. */
  rows: number;
  isAutoFocused?: boolean;
  /** Stands at the right end of the bar below the text. */
  actions: ReactNode;
}

export function PromptBox(props: PromptBoxProps) {
  const { text, images, onImages } = props;
  const [refusal, setRefusal] = useState<string | null>(null);
  const picker = useRef<HTMLInputElement>(null);
  const refusalId = useId();

  const attach = async (files: readonly File[]) => {
    const refused = files.map(refusalOf).find((why) => why !== null) ?? null;
    const accepted = files.filter((file) => refusalOf(file) === null);
    const isTooMany = images.length + accepted.length > MAX_IMAGES;
    setRefusal(refused ?? (isTooMany ? `A prompt takes ${String(MAX_IMAGES)} images.` : null));
    const added = await Promise.all(accepted.map(attachmentOf));
    onImages([...images, ...added].slice(0, MAX_IMAGES));
  };
  const isTooLong = text.length > MAX_PROMPT_BYTES / 4 && new Blob([text]).size > MAX_PROMPT_BYTES;
  const advice = isTooLong ? "A prompt takes at most 256 KiB of text." : refusal;

  return (
    <div
      className="rounded-lg border border-line-strong bg-surface focus-within:border-accent focus-within:ring-1 focus-within:ring-accent"
      onDragOver={(event) => {
        event.preventDefault();
      }}
      onDrop={(event) => {
        event.preventDefault();
        void attach([...event.dataTransfer.files]);
      }}
    >
      <textarea
        data-composer
        aria-label={props.label}
        aria-describedby={advice === null ? undefined : refusalId}
        placeholder={props.placeholder}
        value={text}
        rows={props.rows}
        // The page is for writing this; taking focus here is what a person expects.
        autoFocus={props.isAutoFocused}
        className="block field-sizing-content max-h-[40vh] w-full resize-none bg-transparent px-3 pt-2.5 leading-6 placeholder:text-faint focus:outline-none max-sm:text-base"
        style={{ minHeight: `${String(props.rows * 1.5 + 0.75)}rem` }}
        onChange={(event) => {
          props.onCursor?.(event.target.selectionStart);
          props.onText(event.target.value);
        }}
        onSelect={(event) => {
          props.onCursor?.(event.currentTarget.selectionStart);
        }}
        onBlur={() => {
          props.onCursor?.(null);
        }}
        onKeyDown={(event) => {
          if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) {
            event.preventDefault();
            if (!isTooLong) props.onSend();
          }
        }}
        onPaste={(event) => {
          const files = [...event.clipboardData.files];
          if (files.length === 0) return;
          event.preventDefault();
          void attach(files);
        }}
      />
      {images.length > 0 && (
        <ul aria-label="Images" className="flex flex-wrap gap-2 px-3 pt-2">
          {images.map((image, index) => (
            <li key={index} className="relative">
              <img
                src={imageUrl(image)}
                alt={`Image ${String(index + 1)}`}
                className="size-16 rounded-md border border-line object-cover"
              />
              <IconButton
                label={`Remove image ${String(index + 1)}`}
                className="absolute -top-2 -right-2 !size-6 border border-line bg-raised"
                onClick={() => {
                  onImages(images.filter((_, position) => position !== index));
                }}
              >
                <Icon name="close" className="size-3" />
              </IconButton>
            </li>
          ))}
        </ul>
      )}
      {advice !== null && (
        <p id={refusalId} role="alert" className="px-3 pt-1 text-xs text-bad">
          {advice}
        </p>
      )}
      <div className="flex items-center gap-2 p-2">
        <IconButton label="Attach images" onClick={() => picker.current?.click()}>
          <Icon name="image" />
        </IconButton>
        <input
          ref={picker}
          type="file"
          accept={IMAGE_TYPES.join(",")}
          multiple
          hidden
          aria-label="Image files"
          onChange={(event) => {
            void attach([...(event.target.files ?? [])]);
            event.target.value = "";
          }}
        />
        <span className="flex-1" />
        {props.actions}
      </div>
    </div>
  );
}
