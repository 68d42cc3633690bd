import { expect, test } from "vitest";
import { plainOutput } from "./ansi.ts";

test.each([
  ["plain\n", "plain\n"],
  ["\u001b[1;31mred\u001b[0m", "red"],
  ["\u001b]0;title\u0007text", "text"],
  ["\u001b]8;;https://example.com\u001b\\link\u001b]8;;\u001b\\", "link"],
  ["10%\r50%\r100%\ndone\r\n", "100%\ndone\n"],
  ["bell\u0007\u0000tab\tkept", "belltab\tkept"],
])("%j reads %j", (output, text) => {
  expect(plainOutput(output)).toBe(text);
});
