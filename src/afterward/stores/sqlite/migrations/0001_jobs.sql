-- A process that stores or runs jobs: its sign of life. `beat` is a counter, never a time.
CREATE TABLE processes (
    id TEXT PRIMARY KEY,
    beat INTEGER NOT NULL DEFAULT 0,
    pid INTEGER NOT NULL,
    host TEXT NOT NULL,
    doorbell INTEGER,
    joined_at REAL NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE jobs (
    seq INTEGER PRIMARY KEY,
    id TEXT NOT NULL UNIQUE,
    task TEXT NOT NULL,
    queue TEXT NOT NULL,
    priority INTEGER NOT NULL,
    status TEXT NOT NULL CHECK (status IN ('queued', 'running', 'succeeded', 'failed', 'cancelled')),
    -- 1 once `run_at` has come: what waits for its time stands in no claim's way.
    due INTEGER NOT NULL,
    run_at REAL NOT NULL,
    -- The process that holds a queued job, or is running it.
    process TEXT,
    token TEXT,
    attempt INTEGER NOT NULL DEFAULT 0,
    failures INTEGER NOT NULL DEFAULT 0,
    deaths INTEGER NOT NULL DEFAULT 0,
    unique_key TEXT,
    -- The fingerprint of a signature that the arguments do not fit: whoever has that one passes the job over.
    unfit_for TEXT NOT NULL DEFAULT '',
    arguments TEXT NOT NULL,
    context TEXT,
    result TEXT,
    failure TEXT,
    note TEXT,
    created_at REAL NOT NULL,
    started_at REAL,
    finished_at REAL
) STRICT;

CREATE INDEX jobs_ready ON jobs (queue, task, unfit_for, priority DESC, run_at, seq)
    WHERE status = 'queued' AND due = 1 AND process IS NULL;
CREATE INDEX jobs_later ON jobs (run_at) WHERE status = 'queued' AND due = 0;
CREATE INDEX jobs_taken ON jobs (process) WHERE process IS NOT NULL;
CREATE UNIQUE INDEX jobs_unique ON jobs (task, unique_key)
    WHERE unique_key IS NOT NULL AND status IN ('queued', 'running');

-- Ids given out for a job that turned out to be there already (its unique key was taken).
CREATE TABLE aliases (
    id TEXT PRIMARY KEY,
    job TEXT NOT NULL
) STRICT, WITHOUT ROWID;

-- Attempts that did not succeed; the one that did is the job's own row.
CREATE TABLE attempts (
    job INTEGER NOT NULL REFERENCES jobs (seq) ON DELETE CASCADE,
    number INTEGER NOT NULL,
    outcome TEXT NOT NULL,
    started_at REAL,
    ended_at REAL NOT NULL,
    failure TEXT,
    note TEXT,
    PRIMARY KEY (job, number)
) STRICT, WITHOUT ROWID;
