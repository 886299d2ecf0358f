-- Those that are asked to end, by the process that runs them. A transaction of its own: while it is built, only the writes
-- to this table wait.
CREATE INDEX jobs_asked ON afterward.jobs (process) WHERE cancel_asked_at IS NOT NULL;
