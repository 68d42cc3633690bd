// What several tests do.
import { AxeBuilder } from "@axe-core/playwright";
import { expect, type Page } from "@playwright/test";

export const PROMPT = "Fix the failing test";

/** A copy of the sample whose fix is merged by a test; in the other, `sample`, the bug stays for every test to fix. */
export const REPOSITORY_TO_MERGE = "sample-to-merge";

/** Starts a session on a sample repository with the scripted model; ends on its page. */
export async function startSession(page: Page, prompt = PROMPT, repository = "sample"): Promise<string> {
  await page.goto("/new");
  const model = page.getByRole("combobox", { name: "Model" });
  await expect(page.getByRole("combobox", { name: "Base branch" })).toBeEnabled();
  await page.getByRole("combobox", { name: "Repository" }).selectOption(repository);
  await model.selectOption("scripted/demo");
  await page.getByRole("textbox", { name: "Prompt" }).fill(prompt);
  await page.getByRole("button", { name: "Start session" }).click();
  await page.waitForURL(/\/sessions\/ses_/u);
  return page.url();
}

/** Waits until the session's turn is over and it takes the next prompt. */
export async function waitForIdle(page: Page): Promise<void> {
  await expect(page.getByText("Completed ·").last()).toBeVisible({ timeout: 90_000 });
  await expect(page.getByRole("button", { name: "Stop" })).toBeHidden();
}

/** Texts of all messages of the agent, in order. */
export function messages(page: Page): Promise<string[]> {
  return page.locator("[data-item]").allInnerTexts();
}

/** Identifiers of all messages of the agent, in order. */
export function messageIds(page: Page): Promise<(string | null)[]> {
  return page
    .locator("[data-item]")
    .evaluateAll((elements) => elements.map((element) => element.getAttribute("data-item")));
}

/** Fails on violations that axe calls serious or critical. */
export async function expectAccessible(page: Page): Promise<void> {
  const { violations } = await new AxeBuilder({ page }).analyze();
  const grave = violations.filter(
    (violation) => violation.impact === "serious" || violation.impact === "critical",
  );
  expect(
    grave.map((violation) => `${violation.id}: ${violation.nodes.map((node) => node.html).join(" ")}`),
  ).toEqual([]);
}

export async function expectNoSidewaysScroll(page: Page): Promise<void> {
  const overflow = await page.evaluate(
    () => document.documentElement.scrollWidth - document.documentElement.clientWidth,
  );
  expect(overflow).toBeLessThanOrEqual(0);
}
