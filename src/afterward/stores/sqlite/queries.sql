-- name: join
-- A process shows that it lives. A row that is there stays as it is.
INSERT INTO processes (id, pid, host, doorbell, joined_at) VALUES (?1, ?2, ?3, ?4, ?5) ON CONFLICT (id) DO NOTHING;

-- name: announce
-- It waits for jobs, and can be woken there.
UPDATE processes SET doorbell = ?2 WHERE id = ?1;

-- name: give_all_back
-- running -> queued, or held -> queued: what is in the name of a process that leaves. What was asked to end is cancelled.
UPDATE jobs SET process = NULL, token = NULL,
    status = iif(cancel_asked_at IS NULL, 'queued', 'cancelled'), note = iif(cancel_asked_at IS NULL, note, 'cancelled'),
    finished_at = iif(cancel_asked_at IS NULL, NULL, ?2)
WHERE process = ?1;

-- name: leave
DELETE FROM processes WHERE id = ?1;

-- name: exists
SELECT EXISTS (SELECT 1 FROM processes WHERE id = ?1);

-- name: beat
UPDATE processes SET beat = beat + 1, doorbell = ?2 WHERE id = ?1 RETURNING beat;

-- name: others
SELECT id, beat, doorbell FROM processes WHERE id <> ?1;

-- name: held
-- What is held by or leased to a process.
SELECT id, attempt, token FROM jobs WHERE process = ?1;

-- name: bury
-- The fence of reaping: from here on nothing can be claimed or stored in this process's name.
DELETE FROM processes WHERE id = ?1 AND (?2 IS NULL OR beat = ?2);

-- name: orphans
-- A page of what belongs to processes without a row; a walk over the few distinct owners, not over the jobs.
WITH RECURSIVE owner (process) AS (
    SELECT min(process) FROM jobs WHERE process IS NOT NULL
    UNION ALL
    SELECT (SELECT min(j.process) FROM jobs j WHERE j.process > owner.process) FROM owner WHERE owner.process IS NOT NULL
)
SELECT j.seq, j.id, j.process, j.status, j.attempt
FROM owner JOIN jobs j ON j.process = owner.process
WHERE owner.process IS NOT NULL AND NOT EXISTS (SELECT 1 FROM processes p WHERE p.id = owner.process)
LIMIT ?1;

-- name: orphan_attempt
-- Remember the attempt that its worker's death ended.
INSERT INTO attempts (job, number, outcome, started_at, ended_at, failure, signature)
SELECT seq, attempt, 'died', started_at, ?1, ?2, ?6 FROM jobs WHERE seq = ?3 AND process = ?4 AND attempt = ?5 AND status = 'running'
ON CONFLICT DO NOTHING;

-- name: orphan
-- running -> queued (worker died), or cancelled if it was asked to end; queued and held -> queued
UPDATE jobs SET
    deaths = CASE WHEN status = 'running' THEN min(deaths + 1, max(deaths, ?5)) ELSE deaths END,
    due = CASE WHEN status = 'running' AND deaths + 1 >= ?5 THEN 0 ELSE due END,
    run_at = CASE WHEN status = 'running' AND deaths + 1 >= ?5 THEN ?4 + ?6 ELSE run_at END,
    status = iif(cancel_asked_at IS NULL, 'queued', 'cancelled'), note = iif(cancel_asked_at IS NULL, note, 'cancelled'),
    finished_at = iif(cancel_asked_at IS NULL, NULL, ?4), process = NULL, token = NULL
WHERE seq = ?1 AND process = ?2 AND attempt = ?3 RETURNING status;

-- name: enqueue
-- new -> queued, held by a process, free (null), or already leased to it as attempt 1; a row for each job
INSERT INTO jobs (id, task, queue, priority, status, attempt, process, due, run_at, unique_key, arguments, context, created_at, started_at, max_attempts, timeout, expires_at, owner, origin)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
ON CONFLICT (id) DO NOTHING
ON CONFLICT (task, unique_key) WHERE unique_key IS NOT NULL AND replaced_by IS NULL AND status IN ('queued', 'running') DO NOTHING;

-- name: known_as
-- 0 where the id is that of a job, 1 where it leads to one; nothing where it is new.
SELECT 0 FROM jobs WHERE id = ?1 UNION ALL SELECT 1 FROM aliases WHERE id = ?1;

-- name: alias
-- The id of a call that found its unique key taken leads to the job that has it.
INSERT INTO aliases (id, job)
SELECT ?1, id FROM jobs WHERE task = ?2 AND unique_key = ?3 AND replaced_by IS NULL AND status IN ('queued', 'running');

-- name: expire_unique
-- queued -> cancelled: what has expired keeps its unique key from no other job (?3)
UPDATE jobs SET status = 'cancelled', process = NULL, note = 'expired', finished_at = ?4
WHERE task = ?1 AND unique_key = ?2 AND replaced_by IS NULL AND status IN ('queued', 'running')
    AND status = 'queued' AND expires_at <= ?4 AND id <> ?3;

-- name: replace_waiting
-- queued -> cancelled: another takes its unique key. Not what is followed, in the hands of another system.
UPDATE jobs SET status = 'cancelled', process = NULL, note = 'replaced by ' || ?3, finished_at = ?4
WHERE task = ?1 AND unique_key = ?2 AND replaced_by IS NULL AND status IN ('queued', 'running') AND status = 'queued'
    AND NOT (run_at = 253402214400.5 AND EXISTS (
        SELECT 1 FROM handed h WHERE h.job = jobs.seq AND h.attempt = jobs.attempt AND h.is_followed = 1
    ));

-- name: replace_running
-- It keeps its attempt, and gets no other: it has expired from the beginning of time, however clocks are set. What is
-- followed does not expire as long as it is.
UPDATE jobs SET replaced_by = ?3, expires_at = iif(
    run_at = 253402214400.5 AND EXISTS (
        SELECT 1 FROM handed h WHERE h.job = jobs.seq AND h.attempt = jobs.attempt AND h.is_followed = 1
    ), NULL, 0)
WHERE task = ?1 AND unique_key = ?2 AND replaced_by IS NULL AND status IN ('queued', 'running');

-- name: release
-- queued and held -> queued
UPDATE jobs SET process = NULL WHERE id = ?1 AND process = ?2 AND status = 'queued' RETURNING id;

-- name: promote
-- Its time has come.
UPDATE jobs SET due = 1 WHERE seq IN (SELECT seq FROM jobs WHERE status = 'queued' AND due = 0 AND run_at <= ?1 ORDER BY run_at LIMIT ?2);

-- name: expire
-- queued -> cancelled: no attempt of it may begin any more
UPDATE jobs SET status = 'cancelled', note = coalesce('replaced by ' || replaced_by, 'expired'), finished_at = ?1
WHERE seq IN (SELECT seq FROM jobs WHERE status = 'queued' AND expires_at <= ?1 AND process IS NULL ORDER BY expires_at LIMIT ?2);

-- name: next_due
-- What is handed over waits for no time of its own.
SELECT min(run_at) FROM jobs WHERE status = 'queued' AND due = 0 AND run_at < 253402214400.5;

-- name: lanes
-- The (queue, task, unfit_for) that have a job to claim: one seek for each, however many jobs wait.
WITH RECURSIVE lane (queue, task, unfit_for) AS (
    SELECT * FROM (
        SELECT queue, task, unfit_for FROM jobs
        WHERE status = 'queued' AND due = 1 AND process IS NULL ORDER BY queue, task, unfit_for LIMIT 1
    )
    UNION ALL
    SELECT j.queue, j.task, j.unfit_for FROM lane JOIN jobs j ON j.seq = coalesce(
        (
            SELECT k.seq FROM jobs k
            WHERE k.status = 'queued' AND k.due = 1 AND k.process IS NULL
                AND k.queue = lane.queue AND k.task = lane.task AND k.unfit_for > lane.unfit_for
            ORDER BY k.unfit_for LIMIT 1
        ),
        (
            SELECT k.seq FROM jobs k
            WHERE k.status = 'queued' AND k.due = 1 AND k.process IS NULL AND k.queue = lane.queue AND k.task > lane.task
            ORDER BY k.task, k.unfit_for LIMIT 1
        ),
        (
            SELECT k.seq FROM jobs k
            WHERE k.status = 'queued' AND k.due = 1 AND k.process IS NULL AND k.queue > lane.queue
            ORDER BY k.queue, k.task, k.unfit_for LIMIT 1
        )
    )
)
SELECT queue, task, unfit_for FROM lane;

-- name: has_ready
-- Whether there is anything to claim.
SELECT EXISTS (SELECT 1 FROM jobs WHERE status = 'queued' AND due = 1 AND process IS NULL);

-- name: candidates
-- The most urgent of one lane.
SELECT -priority, run_at, seq FROM jobs
WHERE status = 'queued' AND due = 1 AND process IS NULL AND queue = ?1 AND task = ?2 AND unfit_for = ?3
ORDER BY priority DESC, run_at, seq LIMIT ?4;

-- name: named
-- A job that waits for whoever claims it by name, due or not; but not one that is handed over.
SELECT queue, task, unfit_for, -priority, run_at, seq FROM jobs
WHERE id = ?1 AND status = 'queued' AND process IS NULL AND run_at <> 253402214400.5;

-- name: claim
-- queued -> running
UPDATE jobs SET status = 'running', process = ?2, token = ?3, attempt = attempt + 1, started_at = ?4, note = NULL, unfit_for = ''
WHERE seq = ?1 AND status = 'queued' AND process IS NULL AND (expires_at IS NULL OR expires_at > ?4)
RETURNING id, attempt, process, task, arguments, context, failures, deaths, max_attempts, timeout, queue, priority;

-- name: claimed
-- What an earlier call with the same token was given.
SELECT id, attempt, process, task, arguments, context, failures, deaths, max_attempts, timeout, queue, priority FROM jobs
WHERE process = ?1 AND token = ?2 AND status = 'running' ORDER BY seq;

-- name: succeed
-- running -> succeeded; a row for each attempt: id, attempt, process, result, now
UPDATE jobs SET status = 'succeeded', process = NULL, result = ended.column4, finished_at = ended.column5
FROM (VALUES (?, ?, ?, ?, ?)) ended
WHERE id = ended.column1 AND attempt = ended.column2 AND process = ended.column3 AND status = 'running';

-- name: remember
-- An attempt that is about to end otherwise.
INSERT INTO attempts (job, number, outcome, started_at, ended_at, failure, note, signature)
SELECT seq, attempt, ?4, started_at, ?5, ?6, ?7, ?8 FROM jobs WHERE id = ?1 AND attempt = ?2 AND process = ?3 AND status = 'running'
ON CONFLICT DO NOTHING;

-- name: end
-- running -> failed | cancelled; or -> queued, but cancelled if it was asked to end. From here on it is in no other hands,
-- and what did not expire there, though it was replaced, gets no other attempt.
UPDATE jobs SET process = NULL, token = NULL, due = ?5,
    run_at = coalesce(?6, iif(run_at = 253402214400.5, (SELECT h.run_at FROM handed h WHERE h.job = jobs.seq), NULL), run_at),
    expires_at = iif(replaced_by IS NULL, expires_at, 0),
    failures = failures + ?7, deaths = deaths + ?8, failure = coalesce(?9, failure), unfit_for = ?12,
    signature = iif(?9 IS NULL, signature, ?13), failed_at = iif(?4 = 'queued' AND ?9 IS NOT NULL, ?11, failed_at),
    status = iif(?4 = 'queued' AND cancel_asked_at IS NOT NULL, 'cancelled', ?4),
    note = iif(?4 = 'queued' AND cancel_asked_at IS NOT NULL, 'cancelled', ?10),
    finished_at = iif(?4 = 'queued' AND cancel_asked_at IS NULL, NULL, ?11)
WHERE id = ?1 AND attempt = ?2 AND process = ?3 AND status = 'running' RETURNING id;

-- name: has_succeeded
SELECT EXISTS (SELECT 1 FROM jobs WHERE id = ?1 AND attempt = ?2 AND status = 'succeeded' AND result IS ?3);

-- name: has_ended
-- An attempt is remembered to have ended so.
SELECT EXISTS (
    SELECT 1 FROM attempts a JOIN jobs j ON j.seq = a.job
    WHERE j.id = ?1 AND a.number = ?2 AND a.outcome = ?3 AND a.failure IS ?4 AND a.note IS ?5
);

-- name: is_unfit
-- A job is marked as unfit by its last attempt.
SELECT EXISTS (SELECT 1 FROM jobs WHERE id = ?1 AND attempt = ?2 AND unfit_for = ?3);

-- name: living
-- Processes that have joined. Who has a doorbell waits for jobs.
SELECT id, pid, host, beat, doorbell IS NOT NULL FROM processes ORDER BY id;

-- name: lane_waits
-- How many jobs of one lane are ready, and since when the first. At most so many are counted (?4); the first is found by
-- one seek for each priority.
WITH RECURSIVE urgency (priority, since) AS (
    SELECT * FROM (
        SELECT priority, run_at FROM jobs
        WHERE status = 'queued' AND due = 1 AND process IS NULL AND queue = ?1 AND task = ?2 AND unfit_for = ?3
        ORDER BY priority DESC, run_at LIMIT 1
    )
    UNION ALL
    SELECT j.priority, j.run_at FROM urgency JOIN jobs j ON j.seq = (
        SELECT k.seq FROM jobs k
        WHERE k.status = 'queued' AND k.due = 1 AND k.process IS NULL AND k.queue = ?1 AND k.task = ?2 AND k.unfit_for = ?3
            AND k.priority < urgency.priority
        ORDER BY k.priority DESC, k.run_at LIMIT 1
    )
    LIMIT ?4
)
SELECT
    (
        SELECT count(*) FROM (
            SELECT 1 FROM jobs
            WHERE status = 'queued' AND due = 1 AND process IS NULL AND queue = ?1 AND task = ?2 AND unfit_for = ?3
            LIMIT ?4
        )
    ),
    (SELECT min(since) FROM urgency);

-- name: scheduled
-- Of each queue, how many jobs have come due by a time (?1) that no claim has made ready yet, since when the first, how
-- many wait for their time, and how many are handed over. At most so many are counted (?2); a walk over the queues, not over the jobs.
WITH RECURSIVE lane (queue) AS (
    SELECT min(queue) FROM jobs WHERE status = 'queued' AND due = 0 AND process IS NULL
    UNION ALL
    SELECT (
        SELECT min(j.queue) FROM jobs j
        WHERE j.status = 'queued' AND j.due = 0 AND j.process IS NULL AND j.queue > lane.queue
    )
    FROM lane WHERE lane.queue IS NOT NULL
)
SELECT
    queue,
    (
        SELECT count(*) FROM (
            SELECT 1 FROM jobs j
            WHERE j.status = 'queued' AND j.due = 0 AND j.process IS NULL AND j.queue = lane.queue AND j.run_at <= ?1
            LIMIT ?2
        )
    ),
    (SELECT min(j.run_at) FROM jobs j WHERE j.status = 'queued' AND j.due = 0 AND j.process IS NULL AND j.queue = lane.queue),
    (
        SELECT count(*) FROM (
            SELECT 1 FROM jobs j
            WHERE j.status = 'queued' AND j.due = 0 AND j.process IS NULL AND j.queue = lane.queue
                AND j.run_at > ?1 AND j.run_at < 253402214400.5
            UNION ALL
            SELECT 1 FROM jobs j
            WHERE j.status = 'queued' AND j.due = 0 AND j.process IS NULL AND j.queue = lane.queue
                AND j.run_at > 253402214400.5
            LIMIT ?2
        )
    ),
    (
        SELECT count(*) FROM (
            SELECT 1 FROM jobs j
            WHERE j.status = 'queued' AND j.due = 0 AND j.process IS NULL AND j.queue = lane.queue
                AND j.run_at = 253402214400.5
            LIMIT ?2
        )
    )
FROM lane WHERE queue IS NOT NULL;

-- name: place
-- Where a job stands among those that wait.
SELECT priority, run_at, seq FROM jobs
WHERE id = coalesce((SELECT job FROM aliases WHERE id = ?1), ?1) AND status = 'queued' AND run_at <> 253402214400.5;

-- name: ahead
-- How many of one lane are ready, and stand before a place (?3 ?4 ?5); up to so many (?6)
SELECT count(*) FROM (
    SELECT 1 FROM jobs
    WHERE status = 'queued' AND due = 1 AND process IS NULL AND queue = ?1 AND task = ?2 AND unfit_for = '' AND priority > ?3
    UNION ALL
    SELECT 1 FROM jobs
    WHERE status = 'queued' AND due = 1 AND process IS NULL AND queue = ?1 AND task = ?2 AND unfit_for = '' AND priority = ?3
        AND run_at < ?4
    UNION ALL
    SELECT 1 FROM jobs
    WHERE status = 'queued' AND due = 1 AND process IS NULL AND queue = ?1 AND task = ?2 AND unfit_for = '' AND priority = ?3
        AND run_at = ?4 AND seq < ?5
    LIMIT ?6
);

-- name: overdue_ahead
-- The same of what has come due in one queue (by ?6) and was not made ready yet; so many (?7) are looked at.
SELECT count(*) FROM (
    SELECT task, unfit_for, priority, run_at, seq FROM jobs
    WHERE status = 'queued' AND due = 0 AND process IS NULL AND queue = ?1 AND run_at <= ?6 LIMIT ?7
)
WHERE task IN (SELECT value FROM json_each(?2)) AND unfit_for = ''
    AND (priority > ?3 OR (priority = ?3 AND (run_at, seq) < (?4, ?5)));

-- name: taken_of_queues
-- What is held or run, by queue.
SELECT queue, status FROM jobs WHERE process IS NOT NULL;

-- name: newest_time
-- The latest time that was written, as far as it can be had by index.
SELECT max(at) FROM (
    SELECT (SELECT created_at FROM jobs WHERE seq = (SELECT max(seq) FROM jobs)) AS at
    UNION ALL SELECT (SELECT finished_at FROM jobs WHERE status = 'succeeded' AND finished_at IS NOT NULL ORDER BY finished_at DESC LIMIT 1)
    UNION ALL SELECT (SELECT finished_at FROM jobs WHERE status = 'failed' AND finished_at IS NOT NULL ORDER BY finished_at DESC LIMIT 1)
    UNION ALL SELECT (SELECT finished_at FROM jobs WHERE status = 'cancelled' AND finished_at IS NOT NULL ORDER BY finished_at DESC LIMIT 1)
);

-- name: get
SELECT seq, id, task, queue, priority, status, attempt, failures, deaths, arguments, result, failure, note, unique_key,
    process, created_at, iif(run_at = 253402214400.5, coalesce((
        SELECT h.run_at FROM handed h WHERE h.job = jobs.seq AND h.attempt = jobs.attempt), run_at), run_at),
    started_at, finished_at, unfit_for, max_attempts, timeout, expires_at,
    signature, owner, origin, cancel_asked_at, (SELECT s.progress FROM streams s WHERE s.job = jobs.seq),
    iif(run_at = 253402214400.5 AND status IN ('queued', 'running'), (
        SELECT h.handed_at FROM handed h WHERE h.job = jobs.seq AND h.attempt = jobs.attempt), NULL)
FROM jobs WHERE id = coalesce((SELECT job FROM aliases WHERE id = ?1), ?1);

-- name: owner
SELECT owner FROM jobs WHERE id = ?1;

-- name: attempts
SELECT number, outcome, started_at, ended_at, failure, note, signature FROM attempts WHERE job = ?1 ORDER BY number;

-- name: list
-- A null filter lets everything pass. What was stored before a time (:oldest) passes too: whoever reads stops there.
-- Where the job that it is to begin after (:before) is gone, it begins with the one whose id is next below.
SELECT seq, id, task, queue, priority, status, attempt, failures, deaths, arguments, result, failure, note, unique_key,
    process, created_at, iif(run_at = 253402214400.5, coalesce((
        SELECT h.run_at FROM handed h WHERE h.job = jobs.seq AND h.attempt = jobs.attempt), run_at), run_at),
    started_at, finished_at, unfit_for, max_attempts, timeout, expires_at,
    signature, owner, origin, cancel_asked_at, (SELECT s.progress FROM streams s WHERE s.job = jobs.seq),
    iif(run_at = 253402214400.5 AND status IN ('queued', 'running'), (
        SELECT h.handed_at FROM handed h WHERE h.job = jobs.seq AND h.attempt = jobs.attempt), NULL)
FROM jobs
WHERE (
        created_at < :oldest
        OR ((:statuses IS NULL OR status IN (SELECT value FROM json_each(:statuses)))
            AND (:task IS NULL OR task = :task) AND (:queue IS NULL OR queue = :queue)
            AND (:unique IS NULL OR unique_key = :unique) AND (:owner IS NULL OR owner = :owner)
            AND (:signature IS NULL OR (
                signature = :signature AND (status = 'failed' OR (failed_at IS NOT NULL AND finished_at IS NULL))
            )))
    )
    AND seq < CASE WHEN :before IS NULL THEN 9223372036854775807 ELSE coalesce(
        (SELECT seq FROM jobs WHERE id = coalesce((SELECT job FROM aliases WHERE id = :before), :before)),
        (SELECT seq + 1 FROM jobs WHERE id < :before ORDER BY id DESC LIMIT 1),
        0
    ) END
ORDER BY seq DESC LIMIT :read;

-- name: failing
-- What failed for good with a signature, or fails with it and is tried again.
SELECT seq FROM jobs INDEXED BY jobs_failed WHERE status = 'failed' AND signature = :signature
UNION ALL
SELECT seq FROM jobs INDEXED BY jobs_retrying
WHERE failed_at IS NOT NULL AND finished_at IS NULL AND signature = :signature;

-- name: ended_with
SELECT seq FROM jobs WHERE status = ?2 AND finished_at IS NOT NULL LIMIT ?1;

-- name: waiting
SELECT seq FROM jobs WHERE status = 'queued' AND due = 1 AND process IS NULL
UNION ALL
SELECT seq FROM jobs WHERE status = 'queued' AND due = 0 AND process IS NULL LIMIT ?1;

-- name: taken
-- What is held or run.
SELECT seq FROM jobs WHERE process IS NOT NULL LIMIT ?1;

-- name: with_text
-- Those of the `list` that have a text, whatever the case of its ASCII letters, in their arguments or in the kind or message
-- of their failure; so many.
SELECT * FROM listed
WHERE created_at < :oldest OR instr(lower(arguments), lower(:text))
    OR instr(lower(failure ->> 'kind'), lower(:text)) OR instr(lower(failure ->> 'message'), lower(:text))
ORDER BY seq DESC LIMIT :limit;

-- name: in_hand
-- What is held or run.
SELECT id FROM jobs WHERE process IS NOT NULL LIMIT ?1;

-- name: ended_since
SELECT id FROM jobs WHERE status = ?1 AND finished_at >= ?2 ORDER BY finished_at DESC LIMIT ?3;

-- name: find
-- Ids between two texts, of jobs and of calls that lead to one.
SELECT id FROM jobs WHERE id >= ?1 AND id < ?2
UNION ALL
SELECT id FROM aliases WHERE id >= ?1 AND id < ?2
ORDER BY id LIMIT ?3;

-- name: give_back
-- running -> queued, or held -> queued: jobs in a process's name that it does not know of. What was asked to end is
-- cancelled.
UPDATE jobs SET process = NULL, token = NULL,
    status = iif(cancel_asked_at IS NULL, 'queued', 'cancelled'), note = iif(cancel_asked_at IS NULL, note, 'cancelled'),
    finished_at = iif(cancel_asked_at IS NULL, NULL, ?4)
WHERE id = ?1 AND attempt = ?2 AND process = ?3 RETURNING id;

-- name: cancel
-- queued -> cancelled; not what is followed, in the hands of another system
UPDATE jobs SET status = 'cancelled', process = NULL, note = 'cancelled', finished_at = ?2
WHERE id = coalesce((SELECT job FROM aliases WHERE id = ?1), ?1) AND status = 'queued'
    AND NOT (run_at = 253402214400.5 AND EXISTS (
        SELECT 1 FROM handed h WHERE h.job = jobs.seq AND h.attempt = jobs.attempt AND h.is_followed = 1
    ));

-- name: ask_to_end
-- It runs, or is followed, in the hands of another system: that somebody wants it to end is kept, since when.
UPDATE jobs SET cancel_asked_at = coalesce(cancel_asked_at, ?2)
WHERE id = coalesce((SELECT job FROM aliases WHERE id = ?1), ?1) AND status IN ('queued', 'running');

-- name: asked_to_end
-- Of the few jobs that a process runs: no index of their own, which each claim and each end would pay for.
SELECT id, attempt FROM jobs WHERE process = ?1 AND cancel_asked_at IS NOT NULL;

-- name: hasten
-- It waits for its time no longer; held or not. What was replaced in other hands gets no other attempt.
UPDATE jobs SET due = 1, run_at = ?2, expires_at = iif(replaced_by IS NULL, expires_at, 0)
WHERE id = coalesce((SELECT job FROM aliases WHERE id = ?1), ?1) AND status = 'queued' AND run_at > ?2
    AND cancel_asked_at IS NULL;

-- name: retry
-- failed | cancelled -> queued, with all its attempts before it; not while another unfinished job has its unique key.
-- An expiry that is still to come stays.
UPDATE OR IGNORE jobs SET status = 'queued', due = 1, run_at = ?2, failures = 0, deaths = 0, token = NULL,
    note = 'retried', unfit_for = '', failed_at = NULL, finished_at = NULL, replaced_by = NULL, cancel_asked_at = NULL,
    expires_at = CASE WHEN expires_at > ?2 THEN expires_at END
WHERE id = coalesce((SELECT job FROM aliases WHERE id = ?1), ?1) AND status IN ('failed', 'cancelled');

-- name: unique_of
SELECT task, unique_key, id FROM jobs WHERE id = coalesce((SELECT job FROM aliases WHERE id = ?1), ?1) AND unique_key IS NOT NULL;

-- name: status
SELECT status FROM jobs WHERE id = coalesce((SELECT job FROM aliases WHERE id = ?1), ?1);

-- name: prunable
SELECT count(*) FROM jobs WHERE status = ?1 AND finished_at <= ?2;

-- name: prune
-- The oldest of those that ended with this status up to a time; their attempts go with them.
DELETE FROM jobs
WHERE seq IN (SELECT seq FROM jobs WHERE status = ?1 AND finished_at <= ?2 ORDER BY finished_at LIMIT ?3) RETURNING id;

-- name: prune_aliases
DELETE FROM aliases WHERE job = ?1;

-- name: begin_file
-- A file in the name of a process that lives; what was stored of it before counts no more.
INSERT INTO files (id, process) SELECT ?1, id FROM processes WHERE id = ?2
ON CONFLICT (id) DO UPDATE SET process = excluded.process, chunks = NULL WHERE job IS NULL;

-- name: put_chunk
-- Only while its process lives: from its death on, what is there of the file may be freed.
INSERT OR REPLACE INTO chunks (file, number, data)
SELECT f.seq, ?2, ?3 FROM files f JOIN processes p ON p.id = f.process
WHERE f.id = ?1 AND f.process = ?4 AND f.job IS NULL RETURNING file;

-- name: end_file
UPDATE files SET chunks = ?2 WHERE id = ?1;

-- name: file_is_whole
SELECT EXISTS (SELECT 1 FROM files WHERE id = ?1 AND job IS NULL AND chunks IS NOT NULL);

-- name: link_file
-- From here on it is a job's.
UPDATE files SET job = (SELECT seq FROM jobs WHERE id = ?2), process = '' WHERE id = ?1;

-- name: unlink_file
-- Its job has succeeded.
UPDATE files SET job = NULL WHERE id = ?1 AND job = (SELECT seq FROM jobs WHERE id = ?2);

-- name: loose_files
-- Those that a process is storing, or was.
SELECT id FROM files WHERE job IS NULL AND process = ?1;

-- name: drop_file
-- No process is storing it any more.
UPDATE files SET process = '' WHERE id = ?1 AND process = ?2 AND job IS NULL;

-- name: unwanted_file
-- One that is neither a job's nor a living process's; a walk over the few distinct owners, not over the files.
WITH RECURSIVE owner (process) AS (
    SELECT min(process) FROM files WHERE job IS NULL
    UNION ALL
    SELECT (SELECT min(f.process) FROM files f WHERE f.job IS NULL AND f.process > owner.process)
    FROM owner WHERE owner.process IS NOT NULL
)
SELECT f.seq FROM owner JOIN files f ON f.job IS NULL AND f.process = owner.process
WHERE owner.process IS NOT NULL AND NOT EXISTS (SELECT 1 FROM processes p WHERE p.id = owner.process)
LIMIT 1;

-- name: open_up_file
-- It is not whole any more.
UPDATE files SET chunks = NULL WHERE seq = ?1;

-- name: free_chunks
DELETE FROM chunks WHERE rowid IN (SELECT rowid FROM chunks WHERE file = ?1 LIMIT ?2) RETURNING file;

-- name: free_file
DELETE FROM files WHERE seq = ?1;

-- name: get_chunk
SELECT c.data, c.number + 1 = f.chunks FROM files f JOIN chunks c ON c.file = f.seq AND c.number = ?2
WHERE f.id = ?1 AND f.chunks IS NOT NULL;
