-- When a job failed last that is tried again. The version before does not know of it, and fills it with nothing.
ALTER TABLE afterward.jobs ADD COLUMN failed_at double precision;
