-- Files among the arguments of jobs. A new one is in the name of the process that stores it; once its job is stored,
-- it is that job's; and what is neither a job's nor a living process's is freed, a few chunks at a time.
CREATE TABLE files (
    seq INTEGER PRIMARY KEY,
    id TEXT NOT NULL UNIQUE,
    -- Not ON DELETE CASCADE: a transaction that prunes jobs must not grow with the size of their files.
    job INTEGER REFERENCES jobs (seq) ON DELETE SET NULL,
    process TEXT NOT NULL,
    -- How many there are; null until all are.
    chunks INTEGER
) STRICT;

CREATE INDEX files_job ON files (job) WHERE job IS NOT NULL;
CREATE INDEX files_loose ON files (process) WHERE job IS NULL;

CREATE TABLE chunks (
    file INTEGER NOT NULL REFERENCES files (seq),
    number INTEGER NOT NULL,
    data BLOB NOT NULL,
    PRIMARY KEY (file, number)
) STRICT;
