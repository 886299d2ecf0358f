-- What failed for good, by signature. A transaction of its own: while it is built, only ends of jobs wait.
CREATE INDEX finished_failures ON afterward.finished (signature, id) INCLUDE (task, finished_at) WHERE status = 'failed';
