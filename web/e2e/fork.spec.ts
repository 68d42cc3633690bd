// A session is forked from its page: one fork is shown at once, several are listed.
import { expect, test } from "@playwright/test";
import { picture } from "./places";
import { expectAccessible, expectNoSidewaysScroll, startSession, waitForIdle } from "./steps";

for (const { colorScheme, width } of [
  { colorScheme: "light", width: 1440 },
  { colorScheme: "dark", width: 390 },
] as const) {
  test(`forks, ${colorScheme} at ${String(width)}`, async ({ page }) => {
    const shoot = (name: string) =>
      page.screenshot({ path: picture(`${name}-${String(width)}-${colorScheme}`) });
    await page.emulateMedia({ colorScheme });
    await page.setViewportSize({ width, height: 900 });
    const origin = await startSession(page);
    await waitForIdle(page);

    await page.getByRole("button", { name: "Fork" }).click();
    const dialog = page.getByRole("dialog", { name: "Fork session" });
    await dialog.getByRole("textbox", { name: "Prompt" }).fill("Say what you changed");
    await expectAccessible(page);
    await shoot("fork-dialog");
    await dialog.getByRole("button", { name: "Fork" }).click();
    await page.waitForURL((url) => url.href !== origin);
    await expect(page.getByText("forked the session before here")).toBeVisible();
    await expect(page.getByRole("article", { name: /^Prompt by/u })).toHaveCount(2);
    await waitForIdle(page);
    await expectAccessible(page);
    await expectNoSidewaysScroll(page);
    await page.getByText("forked the session before here").scrollIntoViewIfNeeded();
    await shoot("fork");

    await page.getByRole("link", { name: "the session before" }).click();
    await page.waitForURL(origin);
    await page.getByRole("button", { name: "Fork" }).click();
    await dialog.getByRole("combobox", { name: "How many" }).selectOption("3");
    await dialog.getByRole("button", { name: "Make 3 forks" }).click();
    await expect(dialog.getByRole("link")).toHaveCount(3);
    await expectAccessible(page);
    await shoot("forks");
    await dialog.getByRole("link").nth(1).click();
    await expect(page.getByText("forked the session before here")).toBeVisible();
    await expect(dialog).toBeHidden();
    await page.goto("/");
    await expect(page.getByText("fork", { exact: true }).first()).toBeVisible();
    await shoot("sessions-with-forks");
  });
}
