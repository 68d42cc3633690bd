import { expect, test } from "vitest";
import { freshIdempotencyKey, GreenroomClient } from "./client.ts";
import { ProblemError } from "./problem.ts";

function clientFor(answer: () => Promise<Response>) {
  const requests: Request[] = [];
  const client = new GreenroomClient({
    baseUrl: "http://host",
    token: "secret",
    fetch: (input, init) => {
      requests.push(new Request(input, init));
      return answer();
    },
  });
  return { client, requests };
}
const ok = (body: unknown) => () => Promise.resolve(Response.json(body));

test("a prompt carries its key, its token and its body", async () => {
  const { client, requests } = clientFor(ok({ prompt_id: "prm_1", seq: 2 }));
  await client.sendPrompt("ses_1", { text: "hi" }, "key");
  const request = requests[0];
  expect(request?.url).toBe("http://host/v1/sessions/ses_1/prompts");
  expect(request?.headers.get("idempotency-key")).toBe("key");
  expect(request?.headers.get("authorization")).toBe("Bearer secret");
  expect(await request?.json()).toEqual({ text: "hi" });
});

test("names cannot leave their place in the path", async () => {
  const { client, requests } = clientFor(ok({}));
  await client.pullRequest("../x?y", 3);
  expect(requests[0]?.url).toBe("http://host/v1/repositories/..%2Fx%3Fy/pull-requests/3");
});

test.each([
  { status: 409, body: '{"code":"merge_conflict","message":"m"}', code: "merge_conflict" },
  { status: 502, body: "<html>", code: "http_502" },
  { status: 500, body: '{"error":1}', code: "http_500" },
])("status $status is the problem $code", async ({ status, body, code }) => {
  const { client } = clientFor(() => Promise.resolve(new Response(body, { status })));
  const error = await client.me().catch((thrown: unknown) => thrown);
  expect(error).toBeInstanceOf(ProblemError);
  expect(error).toMatchObject({ code, status });
});

test("no answer is a problem that may go away", async () => {
  const { client } = clientFor(() => Promise.reject(new TypeError("refused")));
  const error = await client.me().catch((thrown: unknown) => thrown);
  expect(error).toMatchObject({ code: "unreachable", status: 0, problem: { retryable: true } });
});

test("keys do not repeat", () => {
  expect(new Set(Array.from({ length: 100 }, freshIdempotencyKey)).size).toBe(100);
});
