// Takes pictures of every page of the built app on the fake server, and runs axe on each. Development only.
// Usage: node web/dev/screenshots.mjs OUTPUT_FOLDER
import { spawn } from "node:child_process";
import { mkdirSync } from "node:fs";
import { fileURLToPath } from "node:url";
import AxeBuilder from "@axe-core/playwright";
import { chromium } from "@playwright/test";

const output = process.argv[2] ?? "test-artifacts/screenshots";
mkdirSync(output, { recursive: true });
const fake = spawn(process.execPath, [fileURLToPath(new URL("fake-server.mjs", import.meta.url))], { stdio: ["ignore", "pipe", "inherit"] });
const address = await new Promise((resolve) => fake.stdout.once("data", (chunk) => resolve(String(chunk).trim())));
const browser = await chromium.launch({
  executablePath: process.env.GREENROOM_CHROMIUM ?? "/usr/bin/chromium",
  args: ["--no-sandbox", "--disable-gpu", "--disable-background-networking"],
});
const DONE = "ses_000000000000000000000000z9";
const RUNNING = "ses_000000000000000000000000zz";
const MIXED = "ses_000000000000000000000000za";
const LONG = "ses_00000000000000000000000lon";
const only = process.argv[3];
const PAGES = {
  sessions: "/",
  new: "/new",
  "session-done": `/sessions/${DONE}`,
  "session-running": `/sessions/${RUNNING}`,
  "session-failed": `/sessions/${MIXED}`,
  "session-long": `/sessions/${LONG}`,
  changes: [`/sessions/${DONE}`, (page) => page.getByRole("tab", { name: /Changes/u }).click()],
  "pull-requests": "/pull-requests",
  "pull-request": "/repositories/sample/pull-requests/1",
  "pull-request-conflict": "/repositories/sample/pull-requests/2",
  repositories: "/repositories",
  "add-repository": ["/repositories", (page) => page.getByRole("button", { name: "Add repository" }).click()],
  menu: ["/", (page) => page.getByRole("button", { name: "You and settings" }).click()],
  help: ["/", (page) => page.keyboard.press("?")],
  "sign-in": "/sign-in",
  "sign-in-used": "/sign-in#token=used",
};
let failures = 0;
for (const [width, height] of [[1440, 900], [390, 844]]) {
  for (const colorScheme of ["light", "dark"]) {
    for (const [name, target] of Object.entries(PAGES)) {
      if (only !== undefined && !name.startsWith(only)) continue;
      const [path, act] = Array.isArray(target) ? target : [target];
      const context = await browser.newContext({ viewport: { width, height }, colorScheme, reducedMotion: "reduce" });
      const page = await context.newPage();
      page.on("console", (message) => {
        if (message.type() === "error" && !message.text().includes("401")) console.log(`console ${name}: ${message.text()}`);
      });
      page.on("pageerror", (error) => console.log(`error ${name}: ${error.message}`));
      await page.goto(address + path, { waitUntil: "networkidle" });
      if (name.startsWith("session-long")) await page.getByText("Step 4998").waitFor();
      if (act !== undefined) await act(page);
      await page.waitForTimeout(250);
      const label = `${name}-${width}-${colorScheme}`;
      const overflow = await page.evaluate(() => document.documentElement.scrollWidth - document.documentElement.clientWidth);
      if (overflow > 0) { failures += 1; console.log(`overflow ${label}: ${overflow} px`); }
      await page.screenshot({ path: `${output}/${label}.png`, fullPage: name === "pull-request" });
      const { violations } = await new AxeBuilder({ page }).analyze();
      for (const violation of violations) {
        failures += 1;
        console.log(`axe ${label}: ${violation.impact} ${violation.id}: ${violation.nodes.slice(0, 3).map((node) => `${node.target} ${node.any[0]?.message ?? ""}`).join(" | ")}`);
      }
      await context.close();
    }
  }
}
await browser.close();
fake.kill();
console.log(failures === 0 ? "no violations, no overflow" : `${failures} findings`);
