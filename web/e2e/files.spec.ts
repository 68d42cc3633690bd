// Images that people send and files that the agent shows: seen by whoever watches, also by a link.
import { expect, test, type Locator, type Page } from "@playwright/test";
import { picture } from "./places";
import { expectAccessible, expectNoSidewaysScroll, waitForIdle } from "./steps";

/** Whether the browser has the picture. */
async function expectDrawn(image: Locator): Promise<void> {
  await image.scrollIntoViewIfNeeded();
  await expect
    .poll(() => image.evaluate((element) => (element as HTMLImageElement).naturalWidth))
    .toBeGreaterThan(0);
}

async function expectFiles(page: Page): Promise<void> {
  await expectDrawn(page.getByRole("img", { name: "Image 1 of the prompt", exact: true }));
  await expectDrawn(page.getByRole("img", { name: "The page after the change", exact: true }));
  const [download] = await Promise.all([
    page.waitForEvent("download"),
    page.getByRole("link", { name: "Download differences.txt" }).click(),
  ]);
  expect(download.suggestedFilename()).toBe("differences.txt");
}

test("images are sent and shown, and files that the agent shows are there for everybody", async ({ page, browser }) => {
  await page.goto("/");
  const sent = await page.screenshot();
  const id = await page.evaluate(async () => {
    const answer = await fetch("/v1/sessions", {
      method: "POST",
      headers: { "content-type": "application/json", "idempotency-key": crypto.randomUUID() },
      body: JSON.stringify({ repository: "sample", model: "files/demo" }),
    });
    return ((await answer.json()) as { session: { id: string } }).session.id;
  });
  await page.goto(`/sessions/${id}`);
  await page.locator("input[type=file]").setInputFiles([
    { name: "before.png", mimeType: "image/png", buffer: sent },
    { name: "phone.png", mimeType: "image/png", buffer: sent },
  ]);
  const box = page.getByRole("textbox", { name: "Prompt", exact: true });
  await box.fill("Compare this with the page after the change");
  await box.press("Control+Enter");
  await waitForIdle(page);
  await expectFiles(page);
  await page.screenshot({ path: picture("files") });
  await expectAccessible(page);
  // Nothing was sent to the page twice: what was shown while it was on its way is the session's file now.
  const first = page.getByRole("img", { name: "Image 1 of the prompt", exact: true });
  await expect(first).toHaveAttribute("src", new RegExp(`/v1/sessions/${id}/blobs/sha256%3A`, "u"));
  await page.setViewportSize({ width: 390, height: 844 });
  await page.emulateMedia({ colorScheme: "dark" });
  await expectNoSidewaysScroll(page);
  await page.screenshot({ path: picture("files-phone-dark") });
  await page.setViewportSize({ width: 1440, height: 900 });

  const link = await page.evaluate(async (session) => {
    const answer = await fetch(`/v1/sessions/${session}/links`, {
      method: "POST",
      headers: { "content-type": "application/json", "idempotency-key": crypto.randomUUID() },
      body: JSON.stringify({ kind: "share" }),
    });
    return ((await answer.json()) as { url: string }).url;
  }, id);
  const context = await browser.newContext({ storageState: { cookies: [], origins: [] } });
  const guest = await context.newPage();
  await guest.goto(link);
  await expectFiles(guest);
  await guest.screenshot({ path: picture("files-shared") });
  await context.close();
});
