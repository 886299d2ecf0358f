"""The statements of a queue in PostgreSQL that drivers are compared by."""

CREATE = """
DROP TABLE IF EXISTS jobs;
CREATE TABLE jobs (
    seq bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    id text NOT NULL UNIQUE,
    task text NOT NULL,
    queue text NOT NULL,
    priority integer NOT NULL,
    status text NOT NULL,
    run_at double precision NOT NULL,
    process text,
    token text,
    attempt integer NOT NULL,
    failures integer NOT NULL,
    deaths integer NOT NULL,
    unique_key text,
    arguments text NOT NULL,
    context text,
    created_at double precision NOT NULL
);
CREATE INDEX jobs_ready ON jobs (queue, task, priority DESC, run_at, seq) WHERE status = 'queued' AND process IS NULL;
"""
INSERT = """
INSERT INTO jobs (id, task, queue, priority, status, run_at, process, token, attempt, failures, deaths, unique_key,
    arguments, context, created_at)
SELECT * FROM unnest($1::text[], $2::text[], $3::text[], $4::integer[], $5::text[], $6::double precision[],
    $7::text[], $8::text[], $9::integer[], $10::integer[], $11::integer[], $12::text[],
    $13::text[], $14::text[], $15::double precision[])
ON CONFLICT (id) DO NOTHING
"""
CLAIM = """
WITH chosen AS MATERIALIZED (
    SELECT seq FROM jobs WHERE status = 'queued' AND process IS NULL AND queue = $1 AND task = $2
    ORDER BY priority DESC, run_at, seq LIMIT $3 FOR UPDATE SKIP LOCKED
)
UPDATE jobs SET status = 'running', process = $4, token = $5, attempt = attempt + 1
FROM chosen WHERE jobs.seq = chosen.seq
RETURNING jobs.seq, id, task, queue, attempt, failures, deaths, arguments, context, created_at
"""
FINISH = """
DELETE FROM jobs USING unnest($1::bigint[], $2::integer[]) AS ended (seq, attempt)
WHERE jobs.seq = ended.seq AND jobs.attempt = ended.attempt AND process = $3 AND status = 'running'
RETURNING jobs.seq
"""
INSERT_JSON = """
INSERT INTO jobs (id, task, queue, priority, status, run_at, process, token, attempt, failures, deaths, unique_key,
    arguments, context, created_at)
SELECT * FROM json_to_recordset($1::json) AS job (id text, task text, queue text, priority integer, status text,
    run_at double precision, process text, token text, attempt integer, failures integer, deaths integer,
    unique_key text, arguments text, context text, created_at double precision)
ON CONFLICT (id) DO NOTHING
"""
FINISH_AND_CLAIM = """
WITH ended AS (
    DELETE FROM jobs USING unnest($1::bigint[], $2::integer[]) AS ended (seq, attempt)
    WHERE jobs.seq = ended.seq AND jobs.attempt = ended.attempt AND process = $3 AND status = 'running'
    RETURNING jobs.seq
), chosen AS MATERIALIZED (
    SELECT seq FROM jobs WHERE status = 'queued' AND process IS NULL AND queue = $4 AND task = $5
    ORDER BY priority DESC, run_at, seq LIMIT $6 FOR UPDATE SKIP LOCKED
), claimed AS (
    UPDATE jobs SET status = 'running', process = $7, token = $8, attempt = attempt + 1
    FROM chosen WHERE jobs.seq = chosen.seq
    RETURNING jobs.seq, id, task, queue, attempt, failures, deaths, arguments, context, created_at
)
SELECT * FROM claimed
UNION ALL SELECT seq, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL FROM ended
"""
ONE = "SELECT $1::integer"
