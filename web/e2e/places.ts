// Where these tests keep what they make.
import { fileURLToPath } from "node:url";

export const artifacts =
  process.env["GREENROOM_ARTIFACTS"] ?? fileURLToPath(new URL("../../test-artifacts/browser", import.meta.url));

/** The signed-in browser's cookies, made by sign-in.setup.ts. */
export const signedInState = `${artifacts}/signed-in.json`;

/** Keeps a picture of a page. */
export function picture(name: string): string {
  return `${artifacts}/screenshots/${name}.png`;
}
