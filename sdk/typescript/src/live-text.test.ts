import { expect, test } from "vitest";
import { liveText, mergeDelta } from "./live-text.ts";

test.each([
  { name: "append", have: "ab", offset: 2, text: "cd", want: "abcd" },
  { name: "repeat", have: "abcd", offset: 2, text: "cd", want: "abcd" },
  { name: "repeat in the middle", have: "abcdef", offset: 2, text: "cd", want: "abcdef" },
  { name: "overlap", have: "abc", offset: 1, text: "bcde", want: "abcde" },
  { name: "gap", have: "ab", offset: 5, text: "fg", want: "ab" },
  { name: "whole text after joining", have: "ab", offset: 0, text: "abcdef", want: "abcdef" },
  { name: "another text", have: "wrong", offset: 0, text: "right", want: "right" },
  { name: "offsets count bytes", have: "é☕😀", offset: 9, text: "!", want: "é☕😀!" },
  { name: "overlap behind wide characters", have: "é☕😀x", offset: 5, text: "😀xy", want: "é☕😀xy" },
  { name: "nothing", have: "ab", offset: 2, text: "", want: "ab" },
])("$name", ({ have, offset, text, want }) => {
  expect(mergeDelta(liveText(have), offset, text)).toEqual(liveText(want));
});
