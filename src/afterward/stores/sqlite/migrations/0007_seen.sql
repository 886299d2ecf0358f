-- Whose a job is, and the request that made it; when somebody asked it to end.
ALTER TABLE jobs ADD COLUMN owner TEXT;
ALTER TABLE jobs ADD COLUMN origin TEXT;
ALTER TABLE jobs ADD COLUMN cancel_asked_at REAL;
-- What tells failures of one cause from those of another.
ALTER TABLE jobs ADD COLUMN signature TEXT NOT NULL DEFAULT '';
ALTER TABLE attempts ADD COLUMN signature TEXT NOT NULL DEFAULT '';

CREATE INDEX jobs_owned ON jobs (owner) WHERE owner IS NOT NULL;
CREATE INDEX jobs_failed ON jobs (signature, task, finished_at) WHERE status = 'failed';
-- What ended, with all that is counted of it: a history reads no job.
DROP INDEX jobs_finished;
CREATE INDEX jobs_finished ON jobs (status, finished_at, queue, run_at, started_at) WHERE finished_at IS NOT NULL;

-- What a job has said so far: one row for each that has said anything.
CREATE TABLE streams (
    seq INTEGER PRIMARY KEY,
    -- Not ON DELETE CASCADE: a transaction that prunes jobs must not grow with what they have said.
    job INTEGER UNIQUE REFERENCES jobs (seq) ON DELETE SET NULL,
    -- The number of its newest event.
    last INTEGER NOT NULL,
    -- The latest attempt that has said anything, and how much it has said.
    attempt INTEGER NOT NULL,
    said INTEGER NOT NULL,
    progress TEXT
) STRICT;

CREATE TABLE events (
    stream INTEGER NOT NULL REFERENCES streams (seq),
    number INTEGER NOT NULL,
    attempt INTEGER NOT NULL,
    kind TEXT NOT NULL,
    data TEXT NOT NULL,
    at REAL NOT NULL,
    PRIMARY KEY (stream, number)
) STRICT, WITHOUT ROWID;

-- What a process runs jobs of, as JSON text; null for one that runs none.
ALTER TABLE processes ADD COLUMN served TEXT;

-- Tasks that some process has served once.
CREATE TABLE tasks (
    name TEXT PRIMARY KEY,
    version TEXT NOT NULL,
    seen_at REAL NOT NULL
) STRICT, WITHOUT ROWID;

-- Queues of which nothing is claimed.
CREATE TABLE pauses (
    queue TEXT PRIMARY KEY,
    since REAL NOT NULL,
    said_by TEXT NOT NULL
) STRICT, WITHOUT ROWID;

-- Keys of requests that are to be answered once. One that is not completed is its process's, as long as that lives.
CREATE TABLE reservations (
    id TEXT NOT NULL UNIQUE,
    scope TEXT NOT NULL,
    key TEXT NOT NULL,
    fingerprint TEXT NOT NULL,
    process TEXT NOT NULL,
    answer TEXT,
    completed_at REAL,
    PRIMARY KEY (scope, key)
) STRICT, WITHOUT ROWID;

CREATE INDEX reservations_open ON reservations (process) WHERE completed_at IS NULL;
CREATE INDEX reservations_completed ON reservations (completed_at) WHERE completed_at IS NOT NULL;
