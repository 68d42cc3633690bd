// What waits in a session: rewritten, moved and removed by its author.
import { expect, test } from "@playwright/test";
import { picture } from "./places";
import { expectAccessible, expectNoSidewaysScroll, PROMPT, startSession } from "./steps";

test("what waits is rewritten, moved and removed", async ({ page }) => {
  const session = /ses_[0-9a-z]+/u.exec(await startSession(page))?.[0] ?? "";
  const texts = [1, 2, 3, 4, 5, 6].map((number) => `Then look at part ${String(number)} of the shop`);
  await page.evaluate(
    async ([id, prompts]) => {
      for (const text of prompts) {
        await fetch(`/v1/sessions/${id}/prompts`, {
          method: "POST",
          headers: { "content-type": "application/json", "idempotency-key": text.replaceAll(" ", "-") },
          body: JSON.stringify({ text }),
        });
      }
      // So that they wait as long as this test looks at them.
      await fetch(`/v1/sessions/${id}`, {
        method: "PATCH",
        headers: { "content-type": "application/json" },
        body: JSON.stringify({ is_queue_paused: true }),
      });
    },
    [session, texts] as const,
  );
  const queue = page.getByRole("region", { name: "Queue" });
  const waiting = queue.getByRole("listitem");
  await expect(waiting.last()).toContainText("part 6");
  await queue.getByRole("button", { name: /^Run earlier: .*part 6/u }).click();
  await expect(waiting.last()).toContainText("part 5");

  await queue.getByRole("button", { name: /^Edit queued prompt: .*part 5/u }).click();
  const text = queue.getByRole("textbox", { name: /part 5/u });
  await expect(text).toBeFocused();
  await text.fill("Something else at the end");
  await page.screenshot({ path: picture("queue-edit") });
  await page.setViewportSize({ width: 390, height: 844 });
  await page.emulateMedia({ colorScheme: "dark" });
  await expectNoSidewaysScroll(page);
  await expect(page.getByRole("textbox", { name: "Prompt", exact: true })).toBeInViewport();
  await page.screenshot({ path: picture("queue-edit-phone-dark") });
  await text.press("Control+Enter");
  await expect(waiting.last()).toContainText("Something else at the end");
  await page.screenshot({ path: picture("queue") });
  await expectAccessible(page);

  // Escape leaves it as it is, and does not stop the turn.
  await queue.getByRole("button", { name: /^Edit queued prompt: Something/u }).click();
  await queue.getByRole("textbox").fill("not this");
  await queue.getByRole("textbox").press("Escape");
  await expect(waiting.last()).toContainText("Something else at the end");
  await queue.getByRole("button", { name: /^Remove queued prompt: Something/u }).click();
  await expect(queue.getByText("Something else at the end")).toBeHidden();

  // One whose turn begins while somebody types: what was typed is kept.
  await queue.getByRole("button", { name: /^Edit queued prompt: .*part 6/u }).click();
  await queue.getByRole("textbox").fill("A better part six");
  await page.evaluate(async (id) => {
    const open = (await (await fetch(`/v1/sessions/${id}/prompts`)).json()) as {
      queued: { id: string }[];
    };
    await fetch(`/v1/sessions/${id}/prompts/${open.queued.at(-1)?.id ?? ""}`, { method: "DELETE" });
  }, session);
  await expect(queue.getByText("does not wait any more")).toBeVisible();
  await page.screenshot({ path: picture("queue-left-draft-phone-dark") });
  await queue.getByRole("button", { name: "Queue as a new prompt" }).click();
  await expect(waiting.last()).toContainText("A better part six");
  await expect(page.getByRole("article", { name: /^Prompt by/u }).first()).toContainText(PROMPT);
});

test("the agent is told something while it works, and what waits is paused", async ({ page }) => {
  await startSession(page);
  const box = page.getByRole("textbox", { name: "Prompt", exact: true });
  // Only a session's page has it.
  const tell = page.getByRole("button", { name: "Tell now" });
  await expect(tell).toBeVisible();
  await box.fill("Mention it in the README too");
  await tell.click();
  await box.fill("And then something else");
  await page.getByRole("button", { name: "Queue", exact: true }).click();
  const queue = page.getByRole("region", { name: "Queue" });
  await queue.getByRole("button", { name: "Pause" }).click();
  await expect(queue.getByText("paused")).toBeVisible();
  // In the middle of the one turn.
  const told = page.locator("[data-turn]").first();
  await expect(told.getByRole("article").last()).toContainText("README too");
  await expect(page.getByText("Completed ·")).toHaveCount(1, { timeout: 90_000 });
  await expect(queue.getByRole("listitem")).toHaveCount(1);
  await page.screenshot({ path: picture("queue-paused") });
  await page.setViewportSize({ width: 390, height: 844 });
  await page.emulateMedia({ colorScheme: "dark" });
  await expectNoSidewaysScroll(page);
  await page.screenshot({ path: picture("queue-paused-phone-dark") });
  await expectAccessible(page);
  await queue.getByRole("button", { name: "Go on" }).click();
  await expect(queue).toBeHidden();
  await expect(tell).toBeVisible();
  await page.screenshot({ path: picture("composer-running-phone-dark") });
  await expect(page.getByText("Completed ·")).toHaveCount(2, { timeout: 90_000 });
});
