// Colours for code in the languages that repositories here are made of. Loaded with the markdown chunk, never on first load.
import type { Root } from "hast";
import bash from "highlight.js/lib/languages/bash";
import css from "highlight.js/lib/languages/css";
import go from "highlight.js/lib/languages/go";
import ini from "highlight.js/lib/languages/ini";
import java from "highlight.js/lib/languages/java";
import javascript from "highlight.js/lib/languages/javascript";
import json from "highlight.js/lib/languages/json";
import python from "highlight.js/lib/languages/python";
import rust from "highlight.js/lib/languages/rust";
import sql from "highlight.js/lib/languages/sql";
import typescript from "highlight.js/lib/languages/typescript";
import xml from "highlight.js/lib/languages/xml";
import yaml from "highlight.js/lib/languages/yaml";
import { createLowlight } from "lowlight";

const lowlight = createLowlight({
  bash,
  css,
  go,
  ini,
  java,
  javascript,
  json,
  python,
  rust,
  sql,
  typescript,
  xml,
  yaml,
});
lowlight.registerAlias({ ini: ["toml"], bash: ["sh", "shell", "console"] });

/** Longer texts are shown plain: colouring must not make a page wait. */
const MAX_CHARACTERS = 20_000;

/** The coloured tree of a text; null if the language is not known or the text is long. */
export function highlight(text: string, language: string): Root | null {
  if (text.length > MAX_CHARACTERS || !lowlight.registered(language)) return null;
  return lowlight.highlight(language, text);
}

const BY_ENDING: Record<string, string> = {
  bash: "bash",
  css: "css",
  go: "go",
  html: "xml",
  java: "java",
  js: "javascript",
  json: "json",
  jsx: "javascript",
  mjs: "javascript",
  py: "python",
  rs: "rust",
  sh: "bash",
  sql: "sql",
  svg: "xml",
  toml: "ini",
  ts: "typescript",
  tsx: "typescript",
  xml: "xml",
  yaml: "yaml",
  yml: "yaml",
};

/** The language of a file by its name; empty if unknown. */
export function languageOf(path: string): string {
  return BY_ENDING[path.slice(path.lastIndexOf(".") + 1).toLowerCase()] ?? "";
}
