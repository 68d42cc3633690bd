// What an agent does to files is seen while it does it.
import { expect, test } from "@playwright/test";
import { picture } from "./places";
import { expectAccessible, expectNoSidewaysScroll } from "./steps";

test("files that change are shown as they change", async ({ page }) => {
  await page.goto("/");
  const id = await page.evaluate(async () => {
    const answer = await fetch("/v1/sessions", {
      method: "POST",
      headers: { "content-type": "application/json", "idempotency-key": crypto.randomUUID() },
      body: JSON.stringify({ repository: "sample", model: "long/demo", prompt: "Change files" }),
    });
    return ((await answer.json()) as { session: { id: string } }).session.id;
  });
  await page.goto(`/sessions/${id}`);
  const changes = page.getByRole("tab", { name: /Changes/u });
  await expect(changes).toHaveAccessibleName(/not all pushed/u);
  await page.screenshot({ path: picture("live-mark") });
  await changes.click();
  const panel = page.getByRole("tabpanel", { name: /Changes/u });
  await expect(panel.getByText("Live: the files in the sandbox as they are now.")).toBeVisible();
  await expect(panel.getByText("first")).toBeVisible();
  await page.screenshot({ path: picture("live-diff") });
  await expectAccessible(page);

  // Without a reload.
  await expect(panel.getByText("second")).toBeVisible({ timeout: 20_000 });
  await page.setViewportSize({ width: 390, height: 844 });
  await page.emulateMedia({ colorScheme: "dark" });
  await expectNoSidewaysScroll(page);
  await page.screenshot({ path: picture("live-diff-phone-dark") });

  // When the turn ends it is pushed, and nothing on the page changes but what says so.
  await page.getByRole("tab", { name: /Transcript/u }).click();
  await page.getByRole("button", { name: /^Stop/u }).click();
  await expect(changes).not.toHaveAccessibleName(/not all pushed/u, { timeout: 20_000 });
  await changes.click();
  await expect(panel.getByText("second")).toBeVisible();
});
