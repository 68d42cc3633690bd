// Every page, light and dark, wide and narrow: no grave axe violation, no sideways scroll, a picture kept.
import { expect, test, type Page } from "@playwright/test";
import { picture, signedInState } from "./places";
import { expectAccessible, expectNoSidewaysScroll, startSession, waitForIdle } from "./steps";

const heading = (name: string) => (page: Page) =>
  expect(page.getByRole("heading", { name, exact: true })).toBeVisible();

const PAGES = [
  { name: "sessions", path: "/", ready: heading("Sessions") },
  { name: "new", path: "/new", ready: heading("What should change?") },
  { name: "pull-requests", path: "/pull-requests", ready: heading("Pull requests") },
  { name: "repositories", path: "/repositories", ready: heading("sample") },
  {
    name: "images",
    path: "/repositories/sample/images",
    ready: (page: Page) => expect(page.getByText("==> published")).toBeVisible(),
  },
];

let sessionAddress = "";
let pullRequestAddress = "";

test.beforeAll(async ({ browser, baseURL }) => {
  if (baseURL === undefined) throw new Error("the configuration gives an address");
  const page = await browser.newPage({ baseURL, storageState: signedInState });
  sessionAddress = await startSession(page);
  await waitForIdle(page);
  const link = page.getByRole("link", { name: /^Pull request [a-z0-9._-]*#/u }).first();
  pullRequestAddress = (await link.getAttribute("href")) ?? "";
  await page.goto("/repositories/sample/images");
  await page.getByRole("button", { name: "Build image" }).click();
  await expect(page.getByText("Published").first()).toBeVisible();
  await page.close();
});

for (const colorScheme of ["light", "dark"] as const) {
  for (const width of [1440, 390]) {
    test(`${colorScheme} at ${String(width)}`, async ({ page }) => {
      await page.emulateMedia({ colorScheme });
      await page.setViewportSize({ width, height: 900 });
      const pages = [
        ...PAGES,
        { name: "session", path: sessionAddress, ready: waitForIdle },
        { name: "pull-request", path: pullRequestAddress, ready: heading("Changes") },
      ];
      for (const { name, path, ready } of pages) {
        await page.goto(path);
        await ready(page);
        await expect(page.getByRole("status", { name: "Loading" })).toHaveCount(0);
        await expectAccessible(page);
        await expectNoSidewaysScroll(page);
        await page.screenshot({ path: picture(`${name}-${String(width)}-${colorScheme}`) });
      }
    });
  }
}
