//! Tables of a session's file. A migration, once released, is never changed; new ones go at the end.

use crate::database::Schema;

pub(crate) static SCHEMA: Schema = Schema {
    // "GrSe" in ASCII.
    application_id: 0x4772_5365,
    migrations: &[
        "
CREATE TABLE lease (
  id INTEGER PRIMARY KEY CHECK (id = 1),
  session_id TEXT NOT NULL,
  epoch INTEGER NOT NULL,
  holder TEXT,
  expires_at_ms INTEGER NOT NULL
) STRICT;

CREATE TABLE events (
  seq INTEGER PRIMARY KEY,
  at_ms INTEGER NOT NULL,
  body TEXT NOT NULL
) STRICT;

CREATE TABLE appends (
  expected_seq INTEGER NOT NULL,
  digest BLOB NOT NULL,
  last_seq INTEGER NOT NULL,
  PRIMARY KEY (expected_seq, digest)
) STRICT, WITHOUT ROWID;

CREATE TABLE journal (
  id INTEGER PRIMARY KEY,
  at_ms INTEGER NOT NULL,
  turn_id TEXT NOT NULL,
  entry TEXT NOT NULL
) STRICT;

CREATE TABLE receipts (
  person_id TEXT NOT NULL,
  key TEXT NOT NULL,
  at_ms INTEGER NOT NULL,
  digest TEXT NOT NULL,
  body TEXT NOT NULL,
  PRIMARY KEY (person_id, key)
) STRICT, WITHOUT ROWID;

CREATE TABLE outbox (
  id INTEGER PRIMARY KEY,
  key TEXT NOT NULL UNIQUE,
  kind TEXT NOT NULL,
  digest TEXT NOT NULL,
  payload TEXT NOT NULL,
  created_at_ms INTEGER NOT NULL,
  attempts INTEGER NOT NULL DEFAULT 0,
  next_attempt_at_ms INTEGER NOT NULL DEFAULT 0,
  outcome TEXT,
  is_final INTEGER NOT NULL DEFAULT 0 CHECK (is_final IN (0, 1))
) STRICT;
CREATE INDEX outbox_pending ON outbox (id) WHERE is_final = 0;
",
        "
CREATE TABLE views (
  version INTEGER NOT NULL,
  seq INTEGER NOT NULL,
  body TEXT NOT NULL,
  PRIMARY KEY (version, seq)
) STRICT, WITHOUT ROWID;
",
        // The bytes last: sizes are added up without reading them.
        "
CREATE TABLE blobs (
  digest TEXT NOT NULL UNIQUE,
  media_type TEXT NOT NULL,
  size_bytes INTEGER NOT NULL,
  bytes BLOB NOT NULL
) STRICT;
",
    ],
};
