// Starts aimock on a free port of loopback, prints its address, and ends with its stdin. The argument is the directory
// that setup.sh installed it into.
import { createRequire } from "node:module";
import path from "node:path";

const require = createRequire(path.join(process.argv[2], "package.json"));
const { LLMock } = require("@copilotkit/aimock");
const mock = new LLMock({ port: 0, host: "127.0.0.1" });
mock.on(
  { userMessage: "weather", hasToolResult: false },
  {
    toolCalls: [
      { name: "get_weather", arguments: { city: "Bern" } },
      { name: "get_weather", arguments: { city: "Oslo" } },
    ],
  },
);
// Each format has its own names for tokens.
const usage = { input_tokens: 11, output_tokens: 7, prompt_tokens: 11, completion_tokens: 7, total_tokens: 18 };
mock.on({ userMessage: "weather", hasToolResult: true }, { content: "Sunny in both — ☀ everywhere.", usage });
await mock.start();
console.log(mock.url);
process.stdin.resume();
process.stdin.on("end", () => process.exit(0));
