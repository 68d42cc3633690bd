// The session benchmark's peer: one Durable Object for each session, which speaks the part of our protocol that the load
// generator uses. It is what a person would write on this platform today, and no more: nothing here is tuned for the
// benchmark, and nothing is left out that our engine does on the same path. README.md says what differs.
/* global Response, URL, WebSocketPair, crypto, setTimeout */
import { DurableObject } from "cloudflare:workers";

const SESSION_PATH = /^\/v1\/sessions\/(ses_[0-9a-f]{32})(\/turn|\/stream)?$/;

export default {
  async fetch(request, env) {
    const { pathname } = new URL(request.url);
    if (pathname === "/health") return new Response("ok");
    if (pathname === "/v1/sessions" && request.method === "POST") {
      const id = `ses_${crypto.randomUUID().replaceAll("-", "")}`;
      await env.SESSIONS.get(env.SESSIONS.idFromName(id)).create();
      return Response.json({ session: { id } }, { status: 201 });
    }
    const match = SESSION_PATH.exec(pathname);
    if (match === null) return failed(404, "not_found");
    return env.SESSIONS.get(env.SESSIONS.idFromName(match[1])).fetch(request);
  },
};

export class Session extends DurableObject {
  constructor(ctx, env) {
    super(ctx, env);
    this.sql = ctx.storage.sql;
    // The constructor runs again whenever an evicted object wakes, and writes nothing then.
    this.sql.exec("CREATE TABLE IF NOT EXISTS events (seq INTEGER PRIMARY KEY, body TEXT)");
    this.sql.exec("CREATE TABLE IF NOT EXISTS receipts (key TEXT PRIMARY KEY, body TEXT)");
    this.lastSeq = this.sql.exec("SELECT COALESCE(MAX(seq), 0) AS seq FROM events").one().seq;
  }

  /** Called by the Worker only, so that no outside request can choose a session's id. */
  async create() {
    this.append({ type: "session.created" });
    // The caller's answer would wait for the commit anyway; awaiting it lets an error reach the caller as an error.
    await this.ctx.storage.sync();
  }

  async fetch(request) {
    const { pathname, searchParams } = new URL(request.url);
    const [, id, action] = SESSION_PATH.exec(pathname);
    // Naming an object makes it, so a session that nobody created is known by its lack of a first event.
    if (this.lastSeq === 0) return failed(404, "not_found");
    if (action === "/stream" && request.method === "GET") return this.stream(request, searchParams);
    if (action === "/turn" && request.method === "POST") {
      const turn = await request.json();
      this.ctx.waitUntil(this.turn(turn.events, turn.interval_ms, "x".repeat(turn.bytes)));
      return Response.json({}, { status: 202 });
    }
    if (action === undefined && request.method === "PATCH") return this.update(id, request);
    return failed(405, "method_not_allowed");
  }

  async update(id, request) {
    const key = request.headers.get("Idempotency-Key");
    if (key === null) return failed(400, "idempotency_key_missing");
    const { delivery } = await request.json();
    // No await from here to the publication: nothing else can run in this object between looking the receipt up and
    // writing it, and one transaction holds both writes.
    const [receipt] = this.sql.exec("SELECT body FROM receipts WHERE key = ?", key).toArray();
    if (receipt !== undefined) {
      return new Response(receipt.body, {
        headers: { "Content-Type": "application/json", "Idempotency-Replayed": "true" },
      });
    }
    let body;
    this.append({ type: "session.delivery_changed", delivery }, (seq) => {
      body = JSON.stringify({ session: { id, delivery, last_seq: seq } });
      this.sql.exec("INSERT INTO receipts (key, body) VALUES (?, ?)", key, body);
    });
    // The output gate holds this answer, like every frame published above, until the commit is synced.
    return new Response(body, { headers: { "Content-Type": "application/json" } });
  }

  async turn(events, intervalMs, text) {
    const startedAtMs = Date.now();
    for (let sent = 1; sent <= events; sent += 1) {
      // Each event has a time of its own on the turn's own grid, so that a late one does not delay all that follow.
      const waitMs = Math.max(0, startedAtMs + sent * intervalMs - Date.now());
      await new Promise((resolve) => setTimeout(resolve, waitMs));
      this.append({ type: "item.completed", text });
      // Writes of one pass of the event loop share a commit; waiting here gives each event of a turn one of its own.
      await this.ctx.storage.sync();
    }
  }

  stream(request, searchParams) {
    if (request.headers.get("Upgrade")?.toLowerCase() !== "websocket") return failed(426, "upgrade_required");
    const after = Number(searchParams.get("after") ?? 0);
    if (!Number.isSafeInteger(after) || after < 0) return failed(400, "bad_cursor");
    const { 0: theirs, 1: ours } = new WebSocketPair();
    // Accepted by the context rather than by `accept()`: such a socket outlives the object when that is evicted.
    this.ctx.acceptWebSocket(ours);
    // Nothing is awaited, so no event falls between the stored ones and the live ones, and none comes twice.
    ours.send(JSON.stringify({ frame: "hello" }));
    for (const row of this.sql.exec("SELECT body FROM events WHERE seq > ? ORDER BY seq", after)) {
      ours.send(eventFrame(row.body));
    }
    ours.send(JSON.stringify({ frame: "caught_up", seq: this.lastSeq }));
    return new Response(null, { status: 101, webSocket: theirs });
  }

  /** Stores one event, and what `also` writes with it, in one transaction; then sends it to every socket. */
  append(fields, also = () => {}) {
    const seq = this.lastSeq + 1;
    const body = JSON.stringify({ seq, at_ms: Date.now(), ...fields });
    this.ctx.storage.transactionSync(() => {
      this.sql.exec("INSERT INTO events (seq, body) VALUES (?, ?)", seq, body);
      also(seq);
    });
    this.lastSeq = seq;
    const frame = eventFrame(body);
    for (const socket of this.ctx.getWebSockets()) {
      try {
        socket.send(frame);
      } catch {
        // The peer has gone and its close has not reached us yet: it resumes from its own cursor.
      }
    }
  }

  // Part of the hibernation API: without the handlers a close or a message would be an error in the log.
  webSocketMessage() {}

  webSocketClose(socket, code, reason) {
    try {
      socket.close(code, reason);
    } catch {
      // Codes that only the runtime may send (1005, 1006) cannot be echoed; the socket is closed anyway.
    }
  }
}

/** The stored text goes out as it is: parsing it only to print it again would be work that our engine does not do. */
function eventFrame(body) {
  return `{"frame":"event","event":${body}}`;
}

function failed(status, code) {
  return Response.json({ error: { code } }, { status });
}
