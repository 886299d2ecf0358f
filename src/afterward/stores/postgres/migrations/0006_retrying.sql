-- What fails and is tried again, by signature. A transaction of its own: while it is built, only the writes to this table
-- wait.
CREATE INDEX jobs_retrying ON afterward.jobs (signature, id) INCLUDE (task, failed_at) WHERE failed_at IS NOT NULL;
UPDATE afterward.jobs j SET failed_at = (SELECT max(a.ended_at) FROM afterward.attempts a WHERE a.job = j.id AND a.failure IS NOT NULL)
WHERE j.failures > 0 AND j.failure IS NOT NULL;
