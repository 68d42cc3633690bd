// What waits in a session: rewritten, moved and removed by its author.
import { expect, test } from "@playwright/test";
import { picture } from "./places";
import { expectAccessible, expectNoSidewaysScroll, PROMPT, startSession } from "./steps";

test("what waits is rewritten, moved and removed", async ({ page }) => {
  const session = /ses_[0-9a-z]+/u.exec(await startSession(page))?.[0] ?? "";
  // Enough that the last ones wait as long as this test looks at them.
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
  await expect(page.getByRole("article", { name: /^Prompt by/u }).first()).toContainText(PROMPT);
});
