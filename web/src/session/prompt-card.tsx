// What a person asked for.
import type { Prompt } from "@greenroom/sdk";
import { LazyMarkdown } from "../markdown/lazy-markdown.tsx";
import { Avatar } from "../ui/badge.tsx";
import { PromptImage } from "./kept-file.tsx";

export function PromptCard({ prompt }: { prompt: Prompt }) {
  const { author, text, images } = prompt;
  return (
    <article aria-label={`Prompt by ${author.name}`} className="flex min-w-0 gap-3">
      <Avatar person={author} />
      <div className="min-w-0 flex-1">
        <p className="mb-1 text-[13px] leading-6 font-semibold">{author.name}</p>
        <div className="rounded-md border border-line bg-surface px-3 py-2">
          <LazyMarkdown text={text} />
          {images !== undefined && images.length > 0 && (
            <div className="mt-2 flex flex-wrap gap-2">
              {images.map((image, index) => (
                <PromptImage
                  key={index}
                  image={image}
                  label={`Image ${String(index + 1)} of the prompt`}
                />
              ))}
            </div>
          )}
        </div>
      </div>
    </article>
  );
}
