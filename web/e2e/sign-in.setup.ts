// Signs in by the one-time link and keeps the cookie for the other tests.
import { expect, test } from "@playwright/test";
import { picture, signedInState } from "./places";

test("a link signs in once and leaves no trace in the address", async ({ page, browser }) => {
  const link = process.env["GREENROOM_SIGN_IN_URL"];
  if (link === undefined) throw new Error("GREENROOM_SIGN_IN_URL must be a fresh sign-in link");

  await page.goto("/");
  await expect(page.getByRole("heading", { name: "Sign in to Greenroom" })).toBeVisible();
  await expect(page.getByText("greenroom sign-in-link")).toBeVisible();
  await page.screenshot({ path: picture("sign-in") });

  await page.goto(link);
  await expect(page.getByRole("heading", { name: "Sessions", exact: true })).toBeVisible();
  expect(page.url()).not.toContain("token");
  await page.context().storageState({ path: signedInState });

  const other = await browser.newPage();
  await other.goto(link);
  await expect(other.getByRole("alert")).toBeVisible();
  await expect(other.getByText("greenroom sign-in-link").first()).toBeVisible();
  expect(other.url()).not.toContain("token");
  await other.close();
});
