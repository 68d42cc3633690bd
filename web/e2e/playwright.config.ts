// Browser tests against a real server. Whoever runs them starts the server and sets:
//   GREENROOM_URL            its address, such as http://127.0.0.1:41234
//   GREENROOM_SIGN_IN_URL    a fresh one-time sign-in link; used once, by the setup
//   GREENROOM_CHROMIUM       optional path of the browser
//   GREENROOM_ARTIFACTS      optional folder for screenshots and traces
import { defineConfig } from "@playwright/test";
import { artifacts, signedInState } from "./places";

const url = process.env["GREENROOM_URL"];
if (url === undefined) throw new Error("GREENROOM_URL must be the address of a running server");

export default defineConfig({
  testDir: ".",
  outputDir: `${artifacts}/results`,
  // Every test talks to the one server that was started for them.
  workers: 1,
  fullyParallel: false,
  forbidOnly: true,
  // As with the other tests: a second try where a failure costs an hour, and the summary names it.
  retries: process.env["CI"] === undefined ? 0 : 1,
  timeout: 120_000,
  expect: { timeout: 20_000 },
  reporter: [["list"]],
  use: {
    baseURL: url,
    viewport: { width: 1440, height: 900 },
    reducedMotion: "reduce",
    screenshot: "only-on-failure",
    trace: "retain-on-failure",
    launchOptions: {
      executablePath: process.env["GREENROOM_CHROMIUM"] ?? "/usr/bin/chromium",
      args: ["--no-sandbox", "--disable-gpu", "--disable-background-networking"],
    },
  },
  projects: [
    { name: "sign-in", testMatch: "sign-in.setup.ts" },
    {
      name: "signed-in",
      testMatch: "*.spec.ts",
      dependencies: ["sign-in"],
      use: { storageState: signedInState },
    },
  ],
});
