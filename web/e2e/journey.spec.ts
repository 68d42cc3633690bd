// The main job in a browser: a prompt becomes a merged pull request, and everyone sees the same.
import { expect, test } from "@playwright/test";
import { picture } from "./places";
import { expectAccessible, expectNoSidewaysScroll, messageIds, messages, PROMPT, REPOSITORY_TO_MERGE, startSession, waitForIdle } from "./steps";

test("a prompt becomes a pull request that gets reviewed and merged", async ({ page }) => {
  await startSession(page, PROMPT, REPOSITORY_TO_MERGE);
  await expect(page.getByText("scripted demo model").first()).toBeVisible();
  await expect(page.getByRole("article", { name: /^Prompt by/u })).toContainText(PROMPT);
  await waitForIdle(page);
  await page.screenshot({ path: picture("session") });

  await page.getByRole("tab", { name: /Changes/u }).click();
  await expect(page.getByText(/files? changed/u)).toBeVisible();
  await page.getByRole("tab", { name: "Transcript" }).click();

  await page.getByRole("link", { name: /^Pull request [a-z0-9._-]*#/u }).first().click();
  await page.waitForURL(/\/pull-requests\/\d+$/u);
  await expect(page.getByRole("heading", { name: "Changes" })).toBeVisible();
  await expect(page.getByRole("table").first()).toBeVisible();
  await expect(page.getByText("Merges without conflicts")).toBeVisible();

  // Nobody approves their own change.
  await expect(page.getByRole("button", { name: "Approve" })).toBeDisabled();

  const line = page.getByRole("button", { name: /^Comment on line/u }).first();
  await line.focus();
  await line.press("Enter");
  await page.getByRole("textbox", { name: /^Comment on line/u }).fill("A remark on **this** line.");
  await page.getByRole("button", { name: "Add comment" }).click();
  await expect(page.getByText("A remark on this line.")).toBeVisible();
  await page.getByRole("textbox", { name: "Review" }).fill("Looks right.");
  await page.getByRole("button", { name: "Comment", exact: true }).click();
  await expect(page.getByRole("article").getByText("Looks right.")).toBeVisible();
  await page.screenshot({ path: picture("pull-request"), fullPage: true });

  await page.getByRole("combobox", { name: "Method" }).selectOption("squash");
  await page.getByRole("button", { name: "Squash and merge" }).click();
  await expect(page.getByText(/^Merged by/u)).toBeVisible();
  await expect(page.getByText("branch deleted")).toBeVisible();
  await page.screenshot({ path: picture("pull-request-merged"), fullPage: true });

  await page.getByRole("link", { name: "Open session" }).click();
  await expect(page.getByText("was merged")).toBeVisible();
});

test("two browsers see the same, and a reload in mid-turn loses and repeats nothing", async ({ page, browser }) => {
  const address = await startSession(page);
  const context = await browser.newContext({ storageState: await page.context().storageState() });
  const other = await context.newPage();
  await other.goto(address);
  // The turn may be quick; wherever it is now, the page must come back to the same.
  await page.reload();
  await waitForIdle(page);
  await waitForIdle(other);
  await expect.poll(() => messages(other)).toEqual(await messages(page));
  const ids = await messageIds(page);
  expect(ids.length).toBeGreaterThan(0);
  expect(new Set(ids).size).toBe(ids.length);
  expect(await messageIds(other)).toEqual(ids);

  const before = await messages(page);
  await page.reload();
  await waitForIdle(page);
  await expect.poll(() => messages(page)).toEqual(before);
  await context.close();
});

test("a connection that breaks comes back by itself", async ({ page }) => {
  const address = await startSession(page);
  await waitForIdle(page);
  await page.context().setOffline(true);
  await page.goto(address).catch(() => null);
  await page.context().setOffline(false);
  await page.goto(address);
  await waitForIdle(page);
  const ids = await messageIds(page);
  expect(new Set(ids).size).toBe(ids.length);
});

test("the whole journey works on a phone's width", async ({ page }) => {
  await page.setViewportSize({ width: 390, height: 844 });
  await startSession(page);
  await waitForIdle(page);
  await expectNoSidewaysScroll(page);
  await page.screenshot({ path: picture("session-390") });
  await page.getByRole("link", { name: /^Pull request [a-z0-9._-]*#/u }).first().click();
  await expect(page.getByRole("table").first()).toBeVisible();
  await expectNoSidewaysScroll(page);
  await page.screenshot({ path: picture("pull-request-390"), fullPage: true });
});

test("a session starts with the keyboard alone", async ({ page }) => {
  await page.goto("/");
  await expect(page.getByRole("heading", { name: "Sessions", exact: true })).toBeVisible();
  await page.keyboard.press("?");
  await expect(page.getByRole("dialog", { name: "Keyboard" })).toBeVisible();
  await page.keyboard.press("Escape");
  await expect(page.getByRole("dialog")).toBeHidden();
  await page.keyboard.press("n");
  await page.waitForURL(/\/new$/u);
  await expect(page.getByRole("textbox", { name: "Prompt" })).toBeFocused();
  await expect(page.getByRole("combobox", { name: "Base branch" })).toBeEnabled();
  await page.keyboard.type(PROMPT);
  await page.keyboard.press("Control+Enter");
  await page.waitForURL(/\/sessions\/ses_/u);
  await waitForIdle(page);
  await expectAccessible(page);
});
