//! The catalog's tables. A migration, once released, is never changed; new ones go at the end.

use crate::database::Schema;

pub(crate) static SCHEMA: Schema = Schema {
    // "GrCa" in ASCII.
    application_id: 0x4772_4361,
    migrations: &[
        "
CREATE TABLE people (
  id TEXT PRIMARY KEY,
  name TEXT NOT NULL,
  email TEXT NOT NULL,
  is_owner INTEGER NOT NULL CHECK (is_owner IN (0, 1)),
  created_at_ms INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE UNIQUE INDEX people_owner ON people (is_owner) WHERE is_owner = 1;

CREATE TABLE api_tokens (
  id TEXT PRIMARY KEY,
  hash BLOB NOT NULL UNIQUE,
  person_id TEXT NOT NULL REFERENCES people (id),
  label TEXT NOT NULL,
  created_at_ms INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX api_tokens_person ON api_tokens (person_id);

CREATE TABLE sign_in_links (
  hash BLOB PRIMARY KEY,
  person_id TEXT NOT NULL REFERENCES people (id),
  expires_at_ms INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE browser_sessions (
  hash BLOB PRIMARY KEY,
  person_id TEXT NOT NULL REFERENCES people (id),
  expires_at_ms INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE repositories (
  name TEXT PRIMARY KEY,
  source TEXT,
  created_at_ms INTEGER NOT NULL,
  created_by TEXT NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE sessions (
  id TEXT PRIMARY KEY,
  repository TEXT NOT NULL,
  state TEXT NOT NULL,
  updated_at_ms INTEGER NOT NULL,
  last_seq INTEGER NOT NULL,
  body TEXT NOT NULL
) STRICT;
CREATE INDEX sessions_by_activity ON sessions (updated_at_ms, id);
CREATE INDEX sessions_by_repository ON sessions (repository, updated_at_ms, id);
CREATE INDEX sessions_unfinished ON sessions (id) WHERE state IN ('running', 'stopping');

CREATE TABLE creation_receipts (
  person_id TEXT NOT NULL,
  key TEXT NOT NULL,
  digest TEXT NOT NULL,
  session_id TEXT NOT NULL,
  created_at_ms INTEGER NOT NULL,
  PRIMARY KEY (person_id, key)
) STRICT, WITHOUT ROWID;

CREATE TABLE sandboxes (
  session_id TEXT PRIMARY KEY,
  sandbox_id TEXT NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE secrets (
  name TEXT PRIMARY KEY,
  sealed BLOB NOT NULL,
  updated_at_ms INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
",
        "
CREATE TABLE environments (
  repository TEXT PRIMARY KEY,
  body TEXT NOT NULL,
  updated_at_ms INTEGER NOT NULL,
  updated_by TEXT NOT NULL
) STRICT, WITHOUT ROWID;
",
        // What the sandbox was started with and is served by after the server was killed, as JSON.
        "
ALTER TABLE sandboxes ADD COLUMN started_with TEXT;
",
        "
CREATE TABLE images (
  id TEXT PRIMARY KEY,
  repository TEXT NOT NULL,
  branch TEXT NOT NULL,
  state TEXT NOT NULL,
  created_at_ms INTEGER NOT NULL,
  body TEXT NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX images_by_repository ON images (repository, created_at_ms, id);
",
        "
CREATE TABLE image_pins (
  name TEXT PRIMARY KEY,
  reference TEXT NOT NULL,
  pinned_at_ms INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE TABLE snapshots (
  id TEXT PRIMARY KEY,
  session_id TEXT NOT NULL,
  created_at_ms INTEGER NOT NULL,
  size_bytes INTEGER NOT NULL,
  is_pinned INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX snapshots_by_session ON snapshots (session_id, created_at_ms, id);
",
        "
ALTER TABLE snapshots ADD COLUMN seq INTEGER NOT NULL DEFAULT 0;
",
        // What an image is stays as it was published.
        "
CREATE TRIGGER images_never_change BEFORE UPDATE ON images
WHEN OLD.state IN ('published', 'failed') AND NEW.body <> OLD.body
BEGIN SELECT RAISE(ABORT, 'an image never changes after it was built'); END;
",
        // What commands were answered with, by their idempotency keys. Without a status: begun.
        "
CREATE TABLE receipts (
  person_id TEXT NOT NULL,
  key TEXT NOT NULL,
  digest TEXT NOT NULL,
  server TEXT NOT NULL,
  status INTEGER,
  body BLOB,
  begun_at_ms INTEGER NOT NULL,
  PRIMARY KEY (person_id, key)
) STRICT, WITHOUT ROWID;
CREATE INDEX receipts_by_age ON receipts (begun_at_ms);
",
        // What sessions are found by. `session_words` has a row for each of `session_texts`, under the same number.
        "
CREATE TABLE session_texts (
  id INTEGER PRIMARY KEY,
  session_id TEXT NOT NULL,
  part TEXT NOT NULL,
  UNIQUE (session_id, part)
) STRICT;
CREATE VIRTUAL TABLE session_words USING fts5 (text, tokenize = 'unicode61 remove_diacritics 2');
CREATE TABLE session_indexed (
  session_id TEXT PRIMARY KEY,
  seq INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
",
        // Several people: several owners, people who left, who sees which session, links into sessions, who did what.
        "
DROP INDEX people_owner;
ALTER TABLE people ADD COLUMN removed_at_ms INTEGER;
CREATE UNIQUE INDEX people_by_email ON people (email COLLATE NOCASE) WHERE removed_at_ms IS NULL;

ALTER TABLE sessions ADD COLUMN access TEXT NOT NULL DEFAULT 'viewer';
CREATE TABLE session_members (
  person_id TEXT NOT NULL,
  session_id TEXT NOT NULL,
  PRIMARY KEY (person_id, session_id)
) STRICT, WITHOUT ROWID;
CREATE INDEX session_members_by_session ON session_members (session_id);

CREATE TABLE session_links (
  id TEXT PRIMARY KEY,
  hash BLOB NOT NULL UNIQUE,
  session_id TEXT NOT NULL,
  kind TEXT NOT NULL,
  role TEXT NOT NULL,
  created_by TEXT NOT NULL REFERENCES people (id),
  created_at_ms INTEGER NOT NULL,
  expires_at_ms INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX session_links_by_session ON session_links (session_id, id);

CREATE TABLE audit (
  id INTEGER PRIMARY KEY AUTOINCREMENT,
  at_ms INTEGER NOT NULL,
  person_id TEXT NOT NULL,
  -- As they were called then.
  person_name TEXT NOT NULL,
  person_email TEXT NOT NULL,
  action TEXT NOT NULL,
  target TEXT NOT NULL,
  status INTEGER,
  subject TEXT
) STRICT;
CREATE INDEX audit_by_age ON audit (at_ms);
CREATE INDEX audit_by_person ON audit (person_id, id);
",
        // Sessions that were deleted. What comes for them late is dropped.
        "
CREATE TABLE deleted_sessions (
  session_id TEXT PRIMARY KEY,
  -- Absent: the server itself, because of its age.
  deleted_by TEXT,
  deleted_at_ms INTEGER NOT NULL,
  -- Whether nothing of it is on disk any more.
  is_removed INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX deleted_sessions_unremoved ON deleted_sessions (session_id) WHERE is_removed = 0;
CREATE TRIGGER deleted_sessions_have_no_row BEFORE INSERT ON sessions
WHEN EXISTS (SELECT 1 FROM deleted_sessions WHERE session_id = NEW.id)
BEGIN SELECT RAISE(IGNORE); END;
CREATE TRIGGER deleted_sessions_have_no_sandbox BEFORE INSERT ON sandboxes
WHEN EXISTS (SELECT 1 FROM deleted_sessions WHERE session_id = NEW.session_id)
BEGIN SELECT RAISE(ABORT, 'the session was deleted'); END;
CREATE TRIGGER deleted_sessions_have_no_snapshots BEFORE INSERT ON snapshots
WHEN EXISTS (SELECT 1 FROM deleted_sessions WHERE session_id = NEW.session_id)
BEGIN SELECT RAISE(ABORT, 'the session was deleted'); END;
",
    ],
};
