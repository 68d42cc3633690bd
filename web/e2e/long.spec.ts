// A session of thousands of events opens at its end, and shows what came before when somebody asks.
import { expect, test, type Page } from "@playwright/test";
import { picture } from "./places";
import { expectAccessible, expectNoSidewaysScroll } from "./steps";

const TURNS = 3;

/** Makes a session with three turns of four hundred reads; returns its id when they are over. */
async function longSession(page: Page): Promise<string> {
  await page.goto("/");
  return page.evaluate(async (turns) => {
    const send = async (path: string, body: object) => {
      const answer = await fetch(path, {
        method: "POST",
        headers: { "content-type": "application/json", "idempotency-key": crypto.randomUUID() },
        body: JSON.stringify(body),
      });
      return (await answer.json()) as { session: { id: string; last_seq: number; state: string } };
    };
    const created = await send("/v1/sessions", {
      repository: "sample",
      model: "long/demo",
      prompt: "Read part 1",
    });
    const { id } = created.session;
    for (let turn = 2; turn <= turns; turn += 1) {
      await send(`/v1/sessions/${id}/prompts`, { text: `Read part ${String(turn)}` });
    }
    for (;;) {
      const row = (await (await fetch(`/v1/sessions/${id}`)).json()) as { state: string; last_seq: number };
      if (row.state === "idle" && row.last_seq > turns * 800) return id;
      await new Promise((resolve) => setTimeout(resolve, 200));
    }
  }, TURNS);
}

test("a long session opens at its end, and earlier parts come when asked for", async ({ page }) => {
  test.setTimeout(180_000);
  const id = await longSession(page);
  const histories: string[] = [];
  page.on("request", (request) => {
    if (request.url().includes("/history?")) histories.push(request.url());
  });
  let frames = 0;
  page.on("websocket", (socket) => {
    socket.on("framereceived", () => {
      frames += 1;
    });
  });
  await page.goto(`/sessions/${id}`);
  const last = page.getByText("Read to the end.").last();
  await expect(last).toBeVisible();
  await expect(page.getByRole("article", { name: /Prompt by/u }).last()).toContainText("Read part 3");
  await expect(page.getByRole("article").filter({ hasText: "Read part 1" })).toBeHidden();
  expect(histories).toEqual([]);
  expect(frames).toBeLessThan(2_000);

  const earlier = page.getByRole("button", { name: /Show earlier/u });
  await earlier.scrollIntoViewIfNeeded();
  await page.screenshot({ path: picture("long-session") });
  await expectAccessible(page);
  await page.setViewportSize({ width: 390, height: 844 });
  await page.emulateMedia({ colorScheme: "dark" });
  await earlier.scrollIntoViewIfNeeded();
  await expectNoSidewaysScroll(page);
  await page.screenshot({ path: picture("long-session-phone-dark") });

  // What does not come is said, and asked for again.
  await page.route("**/history?*", (route) => route.abort());
  await expect(async () => {
    await earlier.click();
    await expect(page.getByText("What came before could not be loaded")).toBeVisible({ timeout: 1_000 });
  }).toPass();
  await page.screenshot({ path: picture("long-session-refused") });
  await page.unroute("**/history?*");
  await expect(async () => {
    if (await earlier.isVisible()) await earlier.click();
    await expect(page.getByRole("button", { name: /Show earlier|Loading/u })).toBeHidden({ timeout: 1_000 });
  }).toPass();
  expect(histories.length).toBeGreaterThanOrEqual(2);
  const prompts = await page.getByRole("article", { name: /Prompt by/u }).allInnerTexts();
  expect(prompts.map((text) => /Read part \d/u.exec(text)?.[0])).toEqual([
    "Read part 1",
    "Read part 2",
    "Read part 3",
  ]);
  await expect(page.getByText("Reading on.")).toHaveCount(10 * TURNS);
  await expect(page.getByText("Read to the end.")).toHaveCount(TURNS);
});
