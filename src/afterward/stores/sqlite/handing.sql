-- name: hand_over
-- What is kept of a job that is handed over, of an attempt that holds it and was not begun by anybody. One that was asked
-- to end is not, unless it is followed. Of one that was taken back, it stays known when it was due, and, if its message was
-- not sent again (?7), when that was confirmed.
INSERT INTO handed (job, id, task, queue, attempt, is_followed, handed_at, again_at, run_at)
SELECT seq, id, task, queue, attempt, ?4, ?5, ?6, run_at FROM jobs
WHERE id = ?1 AND attempt = ?2 AND process = ?3 AND status = 'running' AND token IS NOT 'begun' AND (?4 OR cancel_asked_at IS NULL)
ON CONFLICT (job) DO UPDATE SET attempt = excluded.attempt, is_followed = excluded.is_followed,
    handed_at = iif(?7 OR excluded.run_at <> 253402214400.5, excluded.handed_at, handed.handed_at),
    run_at = iif(excluded.run_at = 253402214400.5, handed.run_at, excluded.run_at), again_at = excluded.again_at
RETURNING job;

-- name: lay_by
-- running -> queued, handed over. What is followed does not expire.
UPDATE jobs SET status = 'queued', process = NULL, token = NULL, due = 0, run_at = 253402214400.5,
    expires_at = iif(?2, NULL, expires_at)
WHERE seq = ?1;

-- name: cancel_asked
-- running -> cancelled: it was asked to end, and is handed over no more.
UPDATE jobs SET status = 'cancelled', process = NULL, token = NULL, note = 'cancelled', finished_at = ?4
WHERE id = ?1 AND attempt = ?2 AND process = ?3 AND status = 'running' AND token IS NOT 'begun' AND cancel_asked_at IS NOT NULL
RETURNING id;

-- name: is_handed
-- Whether a job is handed over, with this attempt.
SELECT EXISTS (
    SELECT 1 FROM jobs j JOIN handed h ON h.job = j.seq AND h.attempt = j.attempt
    WHERE j.id = ?1 AND j.attempt = ?2 AND j.status = 'queued' AND j.run_at = 253402214400.5
);

-- name: begin
-- queued and handed over -> running; or running -> running, of its sender, who could not say yet that it is handed over.
UPDATE jobs SET status = 'running', process = ?4, token = 'begun', started_at = ?5, note = NULL, unfit_for = ''
WHERE id = ?1 AND attempt = ?2 AND (expires_at IS NULL OR expires_at > ?5) AND (
    (status = 'running' AND process = ?3 AND token IS NOT 'begun')
    OR (
        status = 'queued' AND run_at = 253402214400.5
        AND EXISTS (SELECT 1 FROM handed h WHERE h.job = jobs.seq AND h.attempt = jobs.attempt)
    )
)
RETURNING id, attempt, process, task, arguments, context, failures, deaths, max_attempts, timeout, queue, priority;

-- name: make_due
-- It is handed over no more: it is due when it was before, unless it is followed.
UPDATE jobs SET run_at = h.run_at, due = h.run_at <= ?2 FROM handed h
WHERE jobs.id = ?1 AND jobs.run_at = 253402214400.5 AND h.job = jobs.seq AND h.attempt = jobs.attempt AND h.is_followed = 0;

-- name: leave_alone
-- Its message has come, and is not sent once more.
UPDATE handed SET again_at = NULL WHERE job = (SELECT seq FROM jobs WHERE id = ?1);

-- name: forget_begun
DELETE FROM handed WHERE job = (SELECT seq FROM jobs WHERE id = ?1 AND run_at <> 253402214400.5);

-- name: begun
-- An attempt that a process has begun before.
SELECT id, attempt, process, task, arguments, context, failures, deaths, max_attempts, timeout, queue, priority FROM jobs
WHERE id = ?1 AND attempt = ?2 AND process = ?3 AND status = 'running' AND token = 'begun';

-- name: hand_back
-- running -> queued, handed over as before: one that was taken back, or is followed. What was asked to end is cancelled,
-- unless it is followed.
UPDATE jobs SET process = NULL, token = NULL,
    status = iif(cancel_asked_at IS NULL OR h.is_followed, 'queued', 'cancelled'),
    note = iif(cancel_asked_at IS NULL OR h.is_followed, note, 'cancelled'),
    finished_at = iif(cancel_asked_at IS NULL OR h.is_followed, NULL, ?4)
FROM handed h
WHERE jobs.id = ?1 AND jobs.attempt = ?2 AND jobs.process = ?3 AND jobs.status = 'running'
    AND jobs.run_at = 253402214400.5 AND h.job = jobs.seq AND h.attempt = jobs.attempt
RETURNING id, status;

-- name: hand_all_back
-- The same of all that is in the name of a process.
UPDATE jobs SET process = NULL, token = NULL,
    status = iif(cancel_asked_at IS NULL OR h.is_followed, 'queued', 'cancelled'),
    note = iif(cancel_asked_at IS NULL OR h.is_followed, note, 'cancelled'),
    finished_at = iif(cancel_asked_at IS NULL OR h.is_followed, NULL, ?2)
FROM handed h
WHERE jobs.process = ?1 AND jobs.status = 'running'
    AND jobs.run_at = 253402214400.5 AND h.job = jobs.seq AND h.attempt = jobs.attempt;

-- name: queues_again
-- The queues in which jobs of a task are to be due again; a walk over the queues, not over the jobs.
WITH RECURSIVE lane (queue) AS (
    SELECT min(queue) FROM handed WHERE task = ?1 AND again_at IS NOT NULL
    UNION ALL
    SELECT (SELECT min(h.queue) FROM handed h WHERE h.task = ?1 AND h.again_at IS NOT NULL AND h.queue > lane.queue)
    FROM lane WHERE lane.queue IS NOT NULL
)
SELECT queue FROM lane WHERE queue IS NOT NULL;

-- name: due_again
-- Those of one task and queue, the first that was due first.
SELECT h.again_at, h.job, h.handed_at FROM handed h CROSS JOIN jobs j ON j.seq = h.job
WHERE h.task = ?1 AND h.queue = ?2 AND h.again_at <= ?3 AND j.status = 'queued' AND j.run_at = 253402214400.5
    AND j.attempt = h.attempt AND (j.expires_at IS NULL OR j.expires_at > ?3)
ORDER BY h.again_at LIMIT ?4;

-- name: next_again
SELECT min(again_at) FROM handed WHERE task = ?1 AND queue = ?2 AND again_at > ?3;

-- name: take_back
-- queued and handed over -> running
UPDATE jobs SET status = 'running', process = ?2, started_at = ?3 WHERE seq = ?1
RETURNING id, attempt, process, task, arguments, context, failures, deaths, max_attempts, timeout, queue, priority;

-- name: kept
-- A page of what is kept, after a place; and whether it is of a job that is in other hands.
SELECT h.job, j.status IN ('queued', 'running') AND j.run_at = 253402214400.5 AND j.attempt = h.attempt
FROM handed h CROSS JOIN jobs j ON j.seq = h.job WHERE h.job > ?1 ORDER BY h.job LIMIT ?2;

-- name: give_time_back
-- One that has ended in other hands shows in its own row when it was due.
UPDATE jobs SET run_at = h.run_at FROM handed h
WHERE jobs.seq = ?1 AND jobs.run_at = 253402214400.5 AND h.job = jobs.seq AND h.attempt = jobs.attempt;

-- name: forget
DELETE FROM handed WHERE job = ?1;

-- name: followed
-- Of one task, by their ids, after one. Who has taken one back has not begun it.
SELECT h.id, h.attempt, h.task, h.handed_at, iif(j.token = 'begun', j.process, NULL), j.cancel_asked_at IS NOT NULL
FROM handed h CROSS JOIN jobs j ON j.seq = h.job
WHERE h.is_followed = 1 AND h.task = ?1 AND h.id > ?2 AND j.status IN ('queued', 'running') AND j.run_at = 253402214400.5
    AND j.attempt = h.attempt
ORDER BY h.id LIMIT ?3;
