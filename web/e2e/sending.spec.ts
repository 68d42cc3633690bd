// What is sent shows at once, arrives once, and is never lost: not by a broken network, not by a reload.
import { expect, test, type Page } from "@playwright/test";
import { picture } from "./places";
import { expectAccessible, expectNoSidewaysScroll, startSession, waitForIdle } from "./steps";

const PROMPTS = "**/v1/sessions/*/prompts";

function cards(page: Page, text: string) {
  return page.getByRole("article", { name: /Prompt by/u }).filter({ hasText: text });
}

test("a prompt that does not arrive stays in sight and is sent again", async ({ page }) => {
  await startSession(page);
  await waitForIdle(page);
  const box = page.getByRole("textbox", { name: "Prompt", exact: true });
  await page.route(PROMPTS, (route) => route.abort());
  await box.fill("Say hello to the shop");
  await box.press("Control+Enter");
  await expect(box).toHaveValue("");
  const unsent = page.getByRole("list", { name: "Prompts on their way" });
  await expect(unsent.getByRole("alert")).toContainText("Not sent");
  await page.screenshot({ path: picture("not-sent") });
  await expectAccessible(page);
  await page.setViewportSize({ width: 390, height: 844 });
  await page.emulateMedia({ colorScheme: "dark" });
  await expectNoSidewaysScroll(page);
  await page.screenshot({ path: picture("not-sent-phone-dark") });

  // Back into the box, in front of what was begun meanwhile.
  await box.fill("And to its customers");
  await unsent.getByRole("button", { name: "Edit" }).click();
  await expect(box).toHaveValue("Say hello to the shop\n\nAnd to its customers");
  await expect(unsent).toBeHidden();
  await box.fill("Say hello twice");
  await box.press("Control+Enter");
  await expect(unsent.getByRole("alert")).toContainText("Not sent");
  // What comes later arrives later: it waits behind what could not be sent.
  await box.fill("And then good bye");
  await box.press("Control+Enter");
  await expect(unsent.getByRole("listitem")).toHaveCount(2);
  await page.unroute(PROMPTS);
  // By itself, or at once if somebody asks for it.
  await unsent
    .getByRole("button", { name: "Send again" })
    .click({ timeout: 2_000 })
    .catch(() => undefined);
  await expect(unsent).toBeHidden();
  await expect(page.getByRole("article", { name: /Prompt by/u }).last()).toContainText("And then good bye", {
    timeout: 60_000,
  });
  const order = (await page.getByRole("article", { name: /Prompt by/u }).allInnerTexts()).join();
  expect(order.indexOf("Say hello twice")).toBeLessThan(order.indexOf("And then good bye"));
  await expect(cards(page, "Say hello twice")).toHaveCount(1);
  await waitForIdle(page);
});

test("a prompt that is on its way when the page is loaded again arrives once", async ({ page }) => {
  await startSession(page);
  await waitForIdle(page);
  const box = page.getByRole("textbox", { name: "Prompt", exact: true });
  // The server takes it, and its answer never comes; neither do its events.
  let isCut = true;
  let taken = 0;
  await page.route(PROMPTS, async (route) => {
    await route.fetch();
    taken += 1;
  });
  await page.routeWebSocket(/\/stream/u, (socket) => {
    if (!isCut) socket.connectToServer();
  });
  await page.reload();
  await box.fill("Say it once");
  await box.press("Control+Enter");
  await expect(box).toHaveValue("");
  await expect.poll(() => taken).toBe(1);
  await page.unroute(PROMPTS);
  const other = await page.context().newPage();
  await other.goto(page.url());
  await expect(cards(other, "Say it once")).toHaveCount(1);
  isCut = false;
  await page.reload();
  await expect(cards(page, "Say it once")).toHaveCount(1);
  await expect(page.getByRole("list", { name: "Prompts on their way" })).toBeHidden();
  await waitForIdle(page);
  await expect(cards(other, "Say it once")).toHaveCount(1);
  await other.close();
});

test("prompts that are sent quickly arrive in their order", async ({ page }) => {
  await startSession(page);
  const box = page.getByRole("textbox", { name: "Prompt", exact: true });
  let delay = 900;
  await page.route(PROMPTS, async (route) => {
    const wait = delay;
    delay -= 300;
    await new Promise((resolve) => setTimeout(resolve, wait));
    await route.continue();
  });
  const texts = ["First of three", "Second of three", "Third of three"];
  for (const text of texts) {
    await box.fill(text);
    await box.press("Control+Enter");
  }
  await expect(page.getByText("Sending…").first()).toBeVisible();
  await page.screenshot({ path: picture("sending") });
  await expect(page.getByText("Sending…")).toHaveCount(0, { timeout: 20_000 });
  await page.unroute(PROMPTS);
  await page.evaluate(() => fetch(window.location.pathname.replace("/sessions/", "/v1/sessions/")));
  await expect
    .poll(
      async () => {
        const said = await page.getByText(/^(First|Second|Third) of three$/u).allInnerTexts();
        return said;
      },
      { timeout: 90_000 },
    )
    .toEqual(texts);
});

test("whoever signs in next in the same tab sends nothing of somebody else's", async ({ page, browser }) => {
  await page.goto("/");
  const links = await page.evaluate(async () => {
    const people = ["First", "Second"].map(async (name) => {
      const answer = await fetch("/v1/people", {
        method: "POST",
        headers: { "content-type": "application/json" },
        body: JSON.stringify({ name, email: `${name}-${crypto.randomUUID()}@example.com` }),
      });
      return ((await answer.json()) as { sign_in: { url: string } }).sign_in.url;
    });
    return Promise.all(people);
  });
  const context = await browser.newContext({ storageState: { cookies: [], origins: [] } });
  const tab = await context.newPage();
  await tab.goto(links[0] ?? "");
  await expect(tab.getByRole("heading", { name: "Sessions", exact: true })).toBeVisible();
  const address = await startSession(tab);
  await waitForIdle(tab);
  await tab.evaluate(async () => {
    await fetch(window.location.pathname.replace("/sessions/", "/v1/sessions/"), {
      method: "PATCH",
      headers: { "content-type": "application/json" },
      body: JSON.stringify({ access: "editor" }),
    });
  });
  await tab.route(PROMPTS, (route) => route.abort());
  await tab.getByRole("textbox", { name: "Prompt", exact: true }).fill("Known to the first alone");
  await tab.getByRole("textbox", { name: "Prompt", exact: true }).press("Control+Enter");
  await expect(tab.getByRole("alert")).toContainText("Not sent");
  await tab.evaluate(() => fetch("/v1/sign-out", { method: "POST" }));
  await tab.unroute(PROMPTS);
  await tab.goto(links[1] ?? "");
  await expect(tab.getByRole("heading", { name: "Sessions", exact: true })).toBeVisible();
  await tab.goto(address);
  const box = tab.getByRole("textbox", { name: "Prompt", exact: true });
  await box.fill("Of the second");
  await box.press("Control+Enter");
  await expect(cards(tab, "Of the second")).toHaveCount(1);
  await waitForIdle(tab);
  await expect(tab.getByText("Known to the first alone")).toHaveCount(0);
  await context.close();
});
