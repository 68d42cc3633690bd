// Several people: let in, given roles, invited by a link; somebody who only watches; and who did what.
import { expect, test, type Browser, type Page } from "@playwright/test";
import { picture } from "./places";
import { expectAccessible, expectNoSidewaysScroll, startSession, waitForIdle } from "./steps";

/** A browser of somebody else, without anybody's cookie. */
async function otherBrowser(browser: Browser): Promise<Page> {
  const context = await browser.newContext({ storageState: { cookies: [], origins: [] } });
  return context.newPage();
}

async function phoneInTheDark(page: Page, name: string): Promise<void> {
  await page.setViewportSize({ width: 390, height: 844 });
  await page.emulateMedia({ colorScheme: "dark" });
  await expectNoSidewaysScroll(page);
  await page.screenshot({ path: picture(name) });
  await page.setViewportSize({ width: 1440, height: 900 });
  await page.emulateMedia({ colorScheme: "light" });
}

test("somebody is let in, watches, is invited to work, and is removed", async ({ page, browser }) => {
  const name = `Grace ${Date.now().toString(36)}`;
  const email = `${name.replace(" ", ".").toLowerCase()}@example.com`;
  await page.goto("/people");
  const form = page.getByRole("form", { name: "Add a person" });
  await form.getByRole("textbox", { name: "Name" }).fill(name);
  await form.getByRole("textbox", { name: "Email" }).fill(email);
  await form.getByRole("button", { name: "Add" }).click();
  const link = form.getByRole("textbox", { name: new RegExp(`Signs ${name} in once`, "u") });
  await expect(link).toHaveValue(/\/sign-in#token=/u);
  await expectAccessible(page);
  await page.screenshot({ path: picture("people") });
  await phoneInTheDark(page, "people-phone-dark");

  const grace = await otherBrowser(browser);
  await grace.goto(await link.inputValue());
  await grace.waitForURL("**/");

  // Everybody of the server may watch, and is told that this is all.
  const address = await startSession(page);
  const path = new URL(address).pathname;
  await waitForIdle(page);
  await grace.goto(path);
  await expect(grace.getByText("You may watch this session.")).toBeVisible();
  await expect(grace.getByRole("textbox", { name: "Prompt", exact: true })).toBeHidden();
  await expectAccessible(grace);
  await grace.screenshot({ path: picture("session-viewer") });
  await phoneInTheDark(grace, "session-viewer-phone-dark");
  await grace.getByRole("button", { name: "People" }).click();
  await expect(grace.getByRole("region", { name: "Members" })).toContainText("Owner");
  await grace.keyboard.press("Escape");

  await expect(page.getByRole("group", { name: `Watching: ${name}` })).toBeVisible();
  await page.screenshot({ path: picture("session-watched") });

  // The owner invites editors by a link.
  await page.getByRole("button", { name: "Share" }).click();
  const dialog = page.getByRole("dialog", { name: "Share session" });
  await dialog.getByRole("combobox", { name: "Whoever opens a link" }).selectOption("invite-editor");
  await dialog.getByRole("button", { name: "Make a link" }).click();
  const invitation = dialog.getByRole("textbox", { name: "Shown this once" });
  await expect(invitation).toHaveValue(/\/join\/ses_.*#token=grl_/u);
  await expectAccessible(page);
  await page.screenshot({ path: picture("share") });
  await phoneInTheDark(page, "share-phone-dark");
  await grace.goto(await invitation.inputValue());
  await grace.waitForURL(`**${path}`);
  expect(grace.url()).not.toContain("token");
  await grace.getByRole("textbox", { name: "Prompt", exact: true }).fill("Have a look at the cart");
  await expect(page.getByText(`${name} writes a prompt`)).toBeVisible();
  await grace.getByRole("button", { name: "Send" }).click();
  await expect(page.getByText("Have a look at the cart")).toBeVisible();

  await expect(page.getByText(`${name} writes a prompt`)).toBeHidden();

  // A role changes before everybody's eyes.
  const members = dialog.getByRole("region", { name: "Members" });
  await members.getByRole("combobox", { name: `Role of ${name}` }).selectOption("viewer");
  await expect(grace.getByText("You may watch this session.")).toBeVisible();
  await members.getByRole("combobox", { name: `Role of ${name}` }).selectOption("owner");
  await members.getByRole("button", { name: "Cancel" }).click();
  await dialog.getByRole("combobox", { name: "Everybody else on this server" }).selectOption("members");
  await members.getByRole("button", { name: `Remove ${name}` }).click();
  await expect(grace.getByText("There is no such session.")).toBeVisible();
  await page.keyboard.press("Escape");

  await page.goto("/people");
  await page
    .getByRole("listitem")
    .filter({ hasText: email })
    .getByRole("button", { name: "Remove" })
    .click();
  await page.getByRole("button", { name: `Remove ${name}` }).click();
  await expect(page.getByText(email)).toBeHidden();
  await grace.goto("/");
  await grace.waitForURL(/\/sign-in/u);

  await page.goto("/audit");
  await expect(page.getByText("remove person").first()).toBeVisible();
  await expectAccessible(page);
  await page.screenshot({ path: picture("audit") });
  await phoneInTheDark(page, "audit-phone-dark");
  await page.getByRole("textbox", { name: "About" }).fill("nothing that there is");
  await expect(page.getByText("Nothing names this.")).toBeVisible();
});

test("whoever has a share link watches without signing in, until it is revoked", async ({ page, browser }) => {
  const address = await startSession(page);
  await waitForIdle(page);
  await page.getByRole("button", { name: "Share" }).click();
  const dialog = page.getByRole("dialog", { name: "Share session" });
  await dialog.getByRole("combobox", { name: "Whoever opens a link" }).selectOption("share");
  await dialog.getByRole("button", { name: "Make a link" }).click();
  const link = await dialog.getByRole("textbox", { name: "Shown this once" }).inputValue();
  expect(link).toContain("/shared/");

  const guest = await otherBrowser(browser);
  await guest.goto(link);
  await expect(guest.getByText("You watch by a link.")).toBeVisible();
  expect(guest.url()).not.toContain("token");
  await guest.getByRole("tab", { name: /Changes/u }).click();
  await expect(guest.getByText("slug.py").first()).toBeVisible();
  await guest.getByRole("tab", { name: "Transcript" }).click();
  await expectAccessible(guest);
  await guest.screenshot({ path: picture("shared") });
  await phoneInTheDark(guest, "shared-phone-dark");
  await guest.reload();
  await expect(guest.getByText("You watch by a link.")).toBeVisible();
  // It is no way to anywhere else.
  await guest.goto(new URL(address).pathname);
  await guest.waitForURL(/\/sign-in/u);
  await guest.goto(link);
  await expect(guest.getByText("You watch by a link.")).toBeVisible();

  await dialog.getByRole("button", { name: "Revoke" }).click();
  await expect(guest.getByText("This link was revoked or is too old.")).toBeVisible();
});
