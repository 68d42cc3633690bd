// Markdown that loads when first needed; until then the text shows plain.
import { lazy, memo, Suspense } from "react";

const Markdown = lazy(async () => ({ default: (await import("./markdown.tsx")).Markdown }));

export const LazyMarkdown = memo(function LazyMarkdown({ text }: { text: string }) {
  return (
    <Suspense fallback={<p className="prose-agent whitespace-pre-wrap">{text}</p>}>
      <Markdown text={text} />
    </Suspense>
  );
});
