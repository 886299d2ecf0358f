-- One row, which tells this store from every other: a job that joins a transaction must be stored where it is run.
CREATE TABLE afterward.store (
    id uuid NOT NULL DEFAULT gen_random_uuid(),
    is_one boolean PRIMARY KEY DEFAULT true CHECK (is_one)
);
INSERT INTO afterward.store DEFAULT VALUES;

-- A process that stores or runs jobs: its sign of life. `beat` is a counter, never a time.
CREATE TABLE afterward.processes (
    id text COLLATE "C" PRIMARY KEY,
    beat bigint NOT NULL DEFAULT 0,
    pid integer NOT NULL,
    host text NOT NULL,
    -- It keeps an advisory lock as long as its session lasts: one that is gone is a sign of death, and no proof.
    has_lock boolean NOT NULL,
    waits boolean NOT NULL DEFAULT false,
    joined_at double precision NOT NULL
) WITH (fillfactor = 50, autovacuum_vacuum_threshold = 200, autovacuum_vacuum_scale_factor = 0);

-- What waits or runs, and nothing else: this table stays as small as the work that is left. Its columns with a fixed
-- width come first. Times are seconds since 1970.
CREATE TABLE afterward.jobs (
    seq bigint GENERATED ALWAYS AS IDENTITY,
    run_at double precision NOT NULL,
    created_at double precision NOT NULL,
    started_at double precision,
    expires_at double precision,
    timeout double precision,
    priority bigint NOT NULL,
    attempt integer NOT NULL DEFAULT 0,
    failures integer NOT NULL DEFAULT 0,
    deaths integer NOT NULL DEFAULT 0,
    max_attempts integer,
    -- Once `run_at` has come: what waits for its time stands in no claim's way.
    due boolean NOT NULL,
    status text COLLATE "C" NOT NULL,
    id text COLLATE "C" PRIMARY KEY,
    task text COLLATE "C" NOT NULL,
    queue text COLLATE "C" NOT NULL,
    -- The process that holds a queued job, or is running it.
    process text COLLATE "C",
    token text COLLATE "C",
    unique_key text COLLATE "C",
    -- A running job whose unique key another has taken: it keeps its attempt, and gets no other.
    replaced_by text COLLATE "C",
    -- The fingerprint of a signature that the arguments do not fit: whoever has that one passes the job over.
    unfit_for text COLLATE "C" NOT NULL DEFAULT '',
    note text,
    failure text,
    context text,
    arguments text NOT NULL
) WITH (
    autovacuum_vacuum_threshold = 2000, autovacuum_vacuum_scale_factor = 0.05, autovacuum_vacuum_cost_delay = 0,
    autovacuum_vacuum_insert_threshold = -1, autovacuum_analyze_threshold = 2000, autovacuum_analyze_scale_factor = 0.2
);

CREATE INDEX jobs_ready ON afterward.jobs (queue, task, unfit_for, priority DESC, run_at, seq)
    WHERE status = 'queued' AND due AND process IS NULL;
CREATE INDEX jobs_later ON afterward.jobs (run_at) WHERE status = 'queued' AND NOT due;
CREATE INDEX jobs_scheduled ON afterward.jobs (queue, run_at) WHERE status = 'queued' AND NOT due AND process IS NULL;
CREATE INDEX jobs_taken ON afterward.jobs (process, token) WHERE process IS NOT NULL;
CREATE INDEX jobs_expiring ON afterward.jobs (expires_at) WHERE expires_at IS NOT NULL AND status = 'queued';
CREATE UNIQUE INDEX jobs_unique ON afterward.jobs (task, unique_key)
    WHERE unique_key IS NOT NULL AND replaced_by IS NULL;

-- What has ended, out of the way of what waits.
CREATE TABLE afterward.finished (
    seq bigint NOT NULL,
    run_at double precision NOT NULL,
    created_at double precision NOT NULL,
    started_at double precision,
    finished_at double precision NOT NULL,
    expires_at double precision,
    timeout double precision,
    priority bigint NOT NULL,
    attempt integer NOT NULL,
    failures integer NOT NULL,
    deaths integer NOT NULL,
    max_attempts integer,
    status text COLLATE "C" NOT NULL,
    id text COLLATE "C" PRIMARY KEY,
    task text COLLATE "C" NOT NULL,
    queue text COLLATE "C" NOT NULL,
    unique_key text COLLATE "C",
    unfit_for text COLLATE "C" NOT NULL,
    note text,
    failure text,
    context text,
    arguments text NOT NULL,
    result text
);

CREATE INDEX finished_ended ON afterward.finished (status, finished_at);

-- Ids given out for a job that turned out to be there already (its unique key was taken).
CREATE TABLE afterward.aliases (
    id text COLLATE "C" PRIMARY KEY,
    job text COLLATE "C" NOT NULL
);
CREATE INDEX aliases_job ON afterward.aliases (job);

-- Attempts that did not succeed; the one that did is the job's own row.
CREATE TABLE afterward.attempts (
    job text COLLATE "C" NOT NULL,
    number integer NOT NULL,
    outcome text COLLATE "C" NOT NULL,
    started_at double precision,
    ended_at double precision NOT NULL,
    failure text,
    note text,
    PRIMARY KEY (job, number)
);

-- Files among the arguments of jobs. A new one is in the name of the process that stores it; once its job is stored,
-- it is that job's; and what is neither a job's nor a living process's is freed, a few chunks at a time.
CREATE TABLE afterward.files (
    id text COLLATE "C" PRIMARY KEY,
    job text COLLATE "C",
    process text COLLATE "C" NOT NULL,
    -- How many there are; null until all are.
    chunks integer
);
CREATE INDEX files_job ON afterward.files (job) WHERE job IS NOT NULL;
CREATE INDEX files_loose ON afterward.files (process) WHERE job IS NULL;

CREATE TABLE afterward.chunks (
    file text COLLATE "C" NOT NULL,
    number integer NOT NULL,
    data bytea NOT NULL,
    PRIMARY KEY (file, number)
);
ALTER TABLE afterward.chunks ALTER COLUMN data SET STORAGE EXTERNAL;
