-- Jobs in the hands of another system. It counts only for a job with the same attempt whose `run_at` is 253402214400.5, the
-- end of 9999: as long as that waits, no claim finds it, and whoever knows nothing of this table lets it wait.
CREATE TABLE handed (
    job INTEGER PRIMARY KEY REFERENCES jobs (seq) ON DELETE CASCADE,
    -- Of the job, and never another.
    id TEXT NOT NULL,
    task TEXT NOT NULL,
    queue TEXT NOT NULL,
    attempt INTEGER NOT NULL,
    is_followed INTEGER NOT NULL,
    handed_at REAL NOT NULL,
    -- From when on its message is to be sent once more; null: never.
    again_at REAL,
    -- When the job was due before it was handed over.
    run_at REAL NOT NULL
) STRICT;

CREATE INDEX handed_again ON handed (task, queue, again_at) WHERE again_at IS NOT NULL;
CREATE INDEX handed_followed ON handed (task, id) WHERE is_followed = 1;
