-- What waits for its time, by queue: counted without reading what else there is.
CREATE INDEX jobs_scheduled ON jobs (queue, run_at) WHERE status = 'queued' AND due = 0 AND process IS NULL;
