-- When a job failed last that is tried again; null again once a person retries it.
ALTER TABLE jobs ADD COLUMN failed_at REAL;
UPDATE jobs SET failed_at = (SELECT max(a.ended_at) FROM attempts a WHERE a.job = jobs.seq AND a.failure IS NOT NULL)
WHERE finished_at IS NULL AND failure IS NOT NULL AND failures > 0;

-- What fails and is tried again. A claim changes none of these columns, and so does not look at this index. The end of a
-- job is among them, though it is null in each entry: else SQLite looks it up in the job's row.
CREATE INDEX jobs_retrying ON jobs (signature, task, finished_at, failed_at)
    WHERE failed_at IS NOT NULL AND finished_at IS NULL;
