-- A running job whose unique key another has taken: it keeps its attempt, and gets no other.
ALTER TABLE jobs ADD COLUMN replaced_by TEXT;

DROP INDEX jobs_unique;
CREATE UNIQUE INDEX jobs_unique ON jobs (task, unique_key)
    WHERE unique_key IS NOT NULL AND replaced_by IS NULL AND status IN ('queued', 'running');
