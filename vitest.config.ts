import { defineConfig } from "vitest/config";

export default defineConfig({
  test: {
    projects: [
      { test: { name: "sdk", environment: "node", include: ["sdk/typescript/src/**/*.test.ts"] } },
      {
        test: {
          name: "web",
          environment: "happy-dom",
          include: ["web/src/**/*.test.{ts,tsx}"],
        },
      },
    ],
  },
});
