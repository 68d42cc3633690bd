import { expect, test } from "vitest";
import { formatAgo, formatCount, formatDuration } from "./time.ts";

test.each([
  [0, "now"],
  [44_000, "now"],
  [60_000, "1m"],
  [3_599_000, "60m"],
  [3_600_000, "1h"],
  [2 * 86_400_000, "2d"],
  [-5_000, "now"],
])("%i ms ago reads %s", (age, text) => {
  expect(formatAgo(1_000_000_000_000 - age, 1_000_000_000_000)).toBe(text);
});

test.each([
  [0, "0 ms"],
  [999, "999 ms"],
  [1_000, "1.0 s"],
  [59_940, "59.9 s"],
  [59_990, "1 m 00 s"],
  [65_000, "1 m 05 s"],
])("%i ms lasts %s", (ms, text) => {
  expect(formatDuration(ms)).toBe(text);
});

test("large counts are shortened", () => {
  expect([formatCount(999), formatCount(14_210)]).toEqual(["999", "14.2k"]);
});
