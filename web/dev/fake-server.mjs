// A FAKE server for screenshots and design work: plays recorded event logs over the real HTTP and WebSocket shapes.
// Development only: nothing of it is built or shipped, and no test of the product may use it.
// Usage: node web/dev/fake-server.mjs [PORT] (default: a free one; prints its address)
import { readFileSync } from "node:fs";
import { createServer } from "node:http";
import { extname, join, normalize } from "node:path";
import { fileURLToPath } from "node:url";
import { WebSocketServer } from "ws";

const root = fileURLToPath(new URL("../..", import.meta.url));
const dist = join(root, "web/dist");
const readLog = (name) =>
  readFileSync(join(root, `tests/golden/${name}.jsonl`), "utf8")
    .trim()
    .split("\n")
    .map((line) => JSON.parse(line));

const now = Date.now();
const shift = (events, ageMs) => {
  const by = now - ageMs - events[0].at_ms;
  return events.map((event) => ({ ...event, at_ms: event.at_ms + by }));
};
const done = shift(readLog("fix-failing-test"), 12 * 60_000);
const mixed = shift(readLog("queue-stop-retry-resume"), 3 * 3_600_000);
const unknown = shift(readLog("unknown-kinds"), 30 * 3_600_000);
const renumber = (events, id) =>
  events.map((event) => (event.type === "session.created" ? { ...event, session_id: id } : event));
const RUNNING = "ses_000000000000000000000000zz";
const LONG = "ses_00000000000000000000000long".slice(0, 30);
const ada = done[0].created_by;
const ben = mixed.find((event) => event.prompt?.author.name.startsWith("Ben")).prompt.author;
const running = [
  ...renumber(shift(readLog("fix-failing-test").slice(0, 14), 20_000), RUNNING),
];
for (const [index, text] of ["Also cover an empty cart with a test", "Bump the version"].entries()) {
  running.push({
    seq: running.length + 1,
    at_ms: now - 5_000,
    type: "prompt.queued",
    prompt: { id: `prm_queued${index}`, author: index === 0 ? ben : ada, text, queued_at_ms: now },
  });
}
const lastTool = {
  id: "itm_live_tool",
  kind: "tool_call",
  tool: "bash",
  summary: "python -m pytest -q --maxfail=1",
  input: { command: "python -m pytest -q --maxfail=1" },
  status: "running",
  output: "",
};
const turnOf = (events) => events.find((event) => event.type === "turn.started").turn_id;
running.push({
  seq: running.length + 1,
  at_ms: now - 4_000,
  type: "item.started",
  turn_id: turnOf(running),
  item: lastTool,
});
const long = renumber(done.slice(0, 4), LONG);
for (let index = 0; index < 5_000; index += 1) {
  long.push({
    seq: long.length + 1,
    at_ms: now,
    type: "item.completed",
    turn_id: turnOf(long),
    item:
      index % 3 === 0
        ? { id: `itm_l${index}`, kind: "message", text: `Step ${index}: looked at **file ${index}**.` }
        : { ...lastTool, id: `itm_l${index}`, status: "succeeded", output: "ok\n", duration_ms: 12 },
  });
}

const link = (state) => ({
  repository: "sample",
  number: 1,
  title: "Multiply price by quantity in the cart's total",
  state,
  path: "/repositories/sample/pull-requests/1",
});
const rowOf = (events, state, pull_requests, extra = {}) => {
  const { at_ms, session_id, title, repository, base_branch, branch, model, is_scripted, created_by } = events[0];
  return {
    id: session_id,
    title,
    repository,
    base_branch,
    branch,
    model,
    is_scripted,
    created_by,
    state,
    created_at_ms: at_ms,
    updated_at_ms: events.at(-1).at_ms,
    last_seq: events.length,
    pull_requests,
    ...extra,
  };
};
const sessions = new Map(
  [
    [running, rowOf(running, "running", [], { title: "Fix the failing test in the cart" })],
    [done, rowOf(done, "idle", [link("open")])],
    [mixed, rowOf(mixed, "idle", [], { last_error_code: "model_rejected_key" })],
    [long, rowOf(long, "running", [], { title: "A very long session: five thousand items of everything the agent looked at while it searched" })],
    [unknown, rowOf(unknown, "asleep", [{ ...link("merged"), number: 4 }], { title: "Kinds of the day after" })],
  ].map(([events, row]) => [row.id, { events, row }]),
);

const patch = done.find((event) => event.item?.kind === "file_change").item.patch;
const testPatch =
  '--- /dev/null\n+++ b/tests/test_quantity.py\n@@ -0,0 +1,8 @@\n+from cart import Cart, Line\n+\n+\n+def test_total_counts_quantity():\n+    cart = Cart([Line(price=250, quantity=2)])\n+    assert cart.total() == 500  # cents, not euros; a comment long enough to need scrolling on a phone\n+    assert not cart.is_empty()\n+\n';
const diff = {
  files: [
    { path: "src/cart.py", status: "modified", additions: 3, deletions: 1, is_binary: false, patch },
    { path: "tests/test_quantity.py", status: "added", additions: 8, deletions: 0, is_binary: false, patch: testPatch },
    { path: "docs/cart.png", status: "added", additions: 0, deletions: 0, is_binary: true, patch: "" },
  ],
  additions: 11,
  deletions: 1,
  is_truncated: false,
};
const pullRequest = (number, more) => ({
  repository: "sample",
  number,
  title: "Multiply price by quantity in the cart's total",
  body: "`total()` left out the quantity of a line.\n\n- multiply price and quantity\n- add a test for it\n\nFixes the failing `test_total_counts_quantity`.",
  state: "open",
  author: ada,
  session: done[0].session_id,
  prompted_by: [ada],
  head_branch: done[0].branch,
  base_branch: "main",
  head_commit: "8c1f5b0d2e7a49c3b6f1d8e0a5427c9be31f6d04",
  base_commit: "1111111111111111111111111111111111111111",
  mergeability: { status: "clean" },
  comments: [
    { id: 1, author: ben, body: "Should this round? Prices are in **cents**, so no.", position: { path: "src/cart.py", line: 15 }, at_ms: now - 300_000 },
  ],
  reviews: [
    { id: 1, author: ben, verdict: "approve", body: "Small and tested. Thank you.", commit: "8c1f5b0d2e7a49c3b6f1d8e0a5427c9be31f6d04", at_ms: now - 200_000 },
  ],
  is_head_branch_deleted: false,
  created_at_ms: now - 600_000,
  updated_at_ms: now - 200_000,
  ...more,
});
const pullRequests = [
  pullRequest(1, {}),
  pullRequest(2, { title: "Rename the café module", mergeability: { status: "conflicting", paths: ["docs/index.md", "src/cafe.py"] }, reviews: [], comments: [] }),
];
const isEmpty = process.env.FAKE_EMPTY === "1";
let isSignedIn = true;

const json = (status, body) => ({ status, body });
const problem = (status, code, message, hint) => json(status, { code, message, hint, retryable: false });
function answer(method, url, body) {
  const path = url.pathname;
  if (path === "/v1/sign-in") {
    if (body.token !== "good") return problem(401, "sign_in_link_used", "This sign-in link was already used or has expired.", "Run greenroom sign-in-link for a fresh one.");
    isSignedIn = true;
    return json(200, ada);
  }
  if (path === "/v1/sign-out") { isSignedIn = false; return json(204); }
  if (!isSignedIn) return problem(401, "sign_in_required", "Sign in first.");
  if (path === "/v1/me") return json(200, ada);
  if (path === "/v1/stream-tickets") return json(201, { ticket: "t" });
  if (path === "/v1/models") return json(200, { models: [{ id: "scripted/demo", label: "scripted demo model", is_scripted: true, is_default: true }, { id: "anthropic/claude", label: "Claude", is_scripted: false, is_default: false }] });
  if (path === "/v1/repositories") {
    if (method === "POST") return problem(400, "source_unreadable", "The folder is not a git repository.", "Check the path on the server's machine.");
    return json(200, { repositories: isEmpty ? [] : [{ name: "sample", default_branch: "main", clone_url: `${url.origin}/git/sample.git`, created_at_ms: now }, { name: "shop-frontend", default_branch: "trunk", clone_url: `${url.origin}/git/shop-frontend.git`, created_at_ms: now }] });
  }
  if (path.endsWith("/branches")) return json(200, { branches: [{ name: "main", commit: "1" }, { name: "next", commit: "2" }] });
  if (path === "/v1/sessions") {
    if (method === "POST") return json(201, { session: sessions.get(RUNNING).row });
    return json(200, { sessions: isEmpty ? [] : [...sessions.values()].map(({ row }) => row) });
  }
  const session = /^\/v1\/sessions\/([^/]+)(\/.*)?$/u.exec(path);
  if (session !== null) {
    const known = sessions.get(session[1]);
    if (known === undefined) return problem(404, "session_unknown", "There is no such session.");
    if (session[2] === undefined) return json(200, known.row);
    if (session[2] === "/diff") return json(200, diff);
    if (session[2] === "/stop") return json(202, known.row);
    if (session[2] === "/prompts") return json(202, { prompt_id: "prm_x", seq: 1 });
  }
  if (path === "/v1/pull-requests") {
    return json(200, { pull_requests: isEmpty ? [] : pullRequests.filter((entry) => entry.state === url.searchParams.get("state")) });
  }
  const pull = /\/pull-requests\/(\d+)(\/.*)?$/u.exec(path);
  const found = pullRequests.find((entry) => entry.number === Number(pull?.[1]));
  if (found !== undefined) {
    if (pull[2] === "/commits") return json(200, { commits: [{ id: found.head_commit, author_name: ada.name, author_email: ada.email, committer_name: ada.name, committer_email: ada.email, message: `${found.title}\n\nGreenroom-Session: x`, committed_at_ms: now }] });
    if (pull[2] === "/diff") return json(200, diff);
    return json(200, found);
  }
  return problem(404, "not_found", "There is nothing here.");
}

const TYPES = { ".html": "text/html; charset=utf-8", ".js": "text/javascript", ".css": "text/css", ".svg": "image/svg+xml" };
const server = createServer((request, response) => {
  const url = new URL(request.url, `http://${request.headers.host}`);
  if (!url.pathname.startsWith("/v1/")) {
    let file = normalize(join(dist, url.pathname));
    if (!file.startsWith(dist) || extname(file) === "") file = join(dist, "index.html");
    response.writeHead(200, {
      "content-type": TYPES[extname(file)] ?? "application/octet-stream",
      "content-security-policy": "default-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; connect-src 'self'",
    });
    response.end(readFileSync(file));
    return;
  }
  let text = "";
  request.on("data", (chunk) => (text += chunk));
  request.on("end", () => {
    const { status, body } = answer(request.method, url, text === "" ? {} : JSON.parse(text));
    response.writeHead(status, { "content-type": status >= 400 ? "application/problem+json" : "application/json" });
    response.end(body === undefined ? "" : JSON.stringify(body));
  });
});

const sockets = new WebSocketServer({ server });
sockets.on("connection", (socket, request) => {
  const url = new URL(request.url, "http://fake");
  const { events, row } = sessions.get(url.pathname.split("/")[3]);
  const after = Number(url.searchParams.get("after"));
  const send = (frame) => socket.send(JSON.stringify(frame));
  send({ frame: "hello", generation: 1, session_id: row.id, last_seq: events.length });
  for (const event of events.slice(after)) send({ frame: "event", event });
  send({ frame: "caught_up", last_seq: events.length });
  send({ frame: "session", session: row });
  if (row.id === RUNNING) {
    send({ frame: "delta", item_id: lastTool.id, channel: "output", offset: 0, text: "collected 6 items\n\ntests/test_cart.py .." });
    send({ frame: "delta", item_id: "itm_live_message", channel: "message", offset: 0, text: "While the tests run, I look for other places that use `total()`" });
  }
});

server.listen(Number(process.argv[2] ?? 0), "127.0.0.1", () => {
  console.log(`http://127.0.0.1:${server.address().port}`);
});
