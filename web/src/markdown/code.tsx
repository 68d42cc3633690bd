// Code with colours.
import { toJsxRuntime } from "hast-util-to-jsx-runtime";
import type { ReactNode } from "react";
import { Fragment, jsx, jsxs } from "react/jsx-runtime";
import { highlight } from "./highlight.ts";

/** The text as coloured elements, or plain if its language is not known. */
export function Code({ text, language }: { text: string; language: string }): ReactNode {
  const tree = highlight(text, language);
  return tree === null ? text : (toJsxRuntime(tree, { Fragment, jsx, jsxs }) as ReactNode);
}
