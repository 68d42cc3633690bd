// Terminal output as plain text. Pure.

// ECMA-48 control sequences: CSI, OSC up to BEL or ST, and two-character escapes.
// eslint-disable-next-line no-control-regex -- escape sequences are made of control characters
const ESCAPES = /\u001b\[[0-?]*[ -/]*[@-~]|\u001b\][^\u0007\u001b]*(?:\u0007|\u001b\\)|\u001b[@-Z\\-_]/gu;
// eslint-disable-next-line no-control-regex -- control characters are what is removed
const CONTROLS = /[\u0000-\u0008\u000b\u000c\u000e-\u001f\u007f]/gu;

/** Removes colours and cursor moves, and keeps of each line what a carriage return left standing. */
export function plainOutput(output: string): string {
  return output
    .replace(ESCAPES, "")
    .split("\n")
    .map((line) => line.replace(/\r+$/u, "").split("\r").at(-1) ?? "")
    .join("\n")
    .replace(CONTROLS, "");
}
