-- What is said of one call in place of what its task says.
ALTER TABLE jobs ADD COLUMN max_attempts INTEGER;
ALTER TABLE jobs ADD COLUMN timeout REAL;
-- No attempt begins after this.
ALTER TABLE jobs ADD COLUMN expires_at REAL;

CREATE INDEX jobs_expiring ON jobs (expires_at) WHERE expires_at IS NOT NULL AND status = 'queued';
CREATE INDEX jobs_finished ON jobs (status, finished_at) WHERE finished_at IS NOT NULL;
CREATE INDEX aliases_job ON aliases (job);
