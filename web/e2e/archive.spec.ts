// The end of a session: archived, found again, taken back, deleted.
import { expect, test } from "@playwright/test";
import { picture } from "./places";
import { expectAccessible, expectNoSidewaysScroll, startSession, waitForIdle } from "./steps";

test("a session is archived, found among archived ones, taken back, and deleted", async ({ page }) => {
  const address = await startSession(page);
  const path = new URL(address).pathname;
  const prompt = page.getByRole("textbox", { name: "Prompt", exact: true });
  await waitForIdle(page);
  const title = await page.getByRole("heading", { level: 1 }).innerText();

  await page.getByRole("button", { name: "Archive" }).click();
  const dialog = page.getByRole("dialog", { name: "Archive this session?" });
  await expectAccessible(page);
  await page.screenshot({ path: picture("archive") });
  await dialog.getByRole("button", { name: "Archive" }).click();
  await expect(page.getByText("This session is archived")).toBeVisible();
  await expect(prompt).toBeHidden();
  await expectAccessible(page);
  await page.screenshot({ path: picture("archived") });
  await page.setViewportSize({ width: 390, height: 844 });
  await page.emulateMedia({ colorScheme: "dark" });
  await expectNoSidewaysScroll(page);
  await page.screenshot({ path: picture("archived-phone-dark") });

  // The list leaves it out, unless it is asked for archived ones or for words.
  await page.goto("/");
  const row = page.locator(`a[href="${path}"]`);
  await expect(page.getByRole("heading", { name: "Sessions", exact: true })).toBeVisible();
  await expect(row).toBeHidden();
  await page.getByRole("button", { name: "Archived sessions" }).click();
  await expect(row).toBeVisible();
  await expectNoSidewaysScroll(page);
  await expectAccessible(page);
  await page.screenshot({ path: picture("archived-list-phone-dark") });
  await page.setViewportSize({ width: 1440, height: 900 });
  await page.emulateMedia({ colorScheme: "light" });
  await page.screenshot({ path: picture("archived-list") });
  await page.getByRole("button", { name: "Archived sessions" }).click();
  await expect(row).toBeHidden();
  await page.getByRole("searchbox", { name: "Search sessions" }).fill(title.split(" ")[0] ?? title);
  await expect(row).toBeVisible();

  await row.click();
  await page.getByRole("button", { name: "Unarchive" }).click();
  await expect(prompt).toBeVisible();
  await expect(page.getByText("This session is archived")).toBeHidden();

  await page.getByRole("button", { name: "Archive" }).click();
  await dialog.getByRole("button", { name: "Archive" }).click();
  await page.getByRole("button", { name: "Delete…" }).click();
  const sure = page.getByRole("dialog", { name: "Delete this session for good?" });
  await expectAccessible(page);
  await page.screenshot({ path: picture("delete") });
  await sure.getByRole("button", { name: "Delete for good" }).click();
  await page.waitForURL("**/");
  await page.getByRole("button", { name: "Archived sessions" }).click();
  await expect(page.getByText("Loading")).toBeHidden();
  await expect(row).toBeHidden();
  await page.goto(path);
  await expect(page.getByText("This session cannot be shown")).toBeVisible();
});
