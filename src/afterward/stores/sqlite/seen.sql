-- name: describe
UPDATE processes SET served = ?2 WHERE id = ?1 RETURNING id;

-- name: see_task
-- A task that is served now, in this version.
INSERT INTO tasks (name, version, seen_at) VALUES (?1, ?2, ?3)
ON CONFLICT (name) DO UPDATE SET version = excluded.version, seen_at = excluded.seen_at;

-- name: tasks
SELECT name, version, seen_at FROM tasks ORDER BY name;

-- name: processes
-- Who joined last comes first.
SELECT id, pid, host, joined_at, served FROM processes ORDER BY joined_at DESC, id DESC;

-- name: runs
SELECT id FROM jobs WHERE process = ?1 AND status = 'running' ORDER BY seq;

-- name: pause
INSERT INTO pauses (queue, since, said_by) VALUES (?1, ?2, ?3) ON CONFLICT DO NOTHING RETURNING queue;

-- name: resume
DELETE FROM pauses WHERE queue = ?1 RETURNING queue;

-- name: paused
SELECT queue, since, said_by FROM pauses ORDER BY queue;

-- name: failures
-- What failed for good, and what is tried again: each by signature and task.
SELECT 'failed', signature, task, count(*), min(finished_at), max(finished_at) FROM jobs
WHERE status = 'failed' GROUP BY signature, task
UNION ALL
SELECT 'retrying', signature, task, count(*), min(failed_at), max(failed_at) FROM jobs
WHERE failed_at IS NOT NULL AND finished_at IS NULL GROUP BY signature, task;

-- name: newest_retrying
-- The one with a signature, of a task, that failed last of those that are tried again.
SELECT id, failure FROM jobs WHERE failed_at IS NOT NULL AND finished_at IS NULL AND signature = ?1 AND task = ?2
ORDER BY failed_at DESC, seq DESC LIMIT 1;

-- name: newest_failed
-- The same of those that failed for good.
SELECT id, failure FROM jobs WHERE status = 'failed' AND signature = ?1 AND task = ?2
ORDER BY finished_at DESC, seq DESC LIMIT 1;

-- name: history
-- What ended since a time, by spans of so many seconds and by queue.
SELECT queue, floor(finished_at / ?2) * ?2 AS began,
    count(*) FILTER (WHERE status = 'succeeded'), count(*) FILTER (WHERE status = 'failed'),
    count(*) FILTER (WHERE status = 'cancelled'),
    percentile(max(0.0, started_at - run_at), 50) FILTER (WHERE status <> 'cancelled'),
    percentile(max(0.0, started_at - run_at), 95) FILTER (WHERE status <> 'cancelled'),
    percentile(max(0.0, finished_at - started_at), 50) FILTER (WHERE status <> 'cancelled'),
    percentile(max(0.0, finished_at - started_at), 95) FILTER (WHERE status <> 'cancelled')
FROM jobs WHERE status IN ('succeeded', 'failed', 'cancelled') AND finished_at >= ?1
GROUP BY began, queue ORDER BY began, queue;

-- name: reservation
SELECT id, fingerprint, process, answer FROM reservations WHERE scope = ?1 AND key = ?2;

-- name: reserve
-- A key that nobody has, or whose process is dead.
INSERT INTO reservations (id, scope, key, fingerprint, process) VALUES (?1, ?2, ?3, ?4, ?5)
ON CONFLICT (scope, key) DO UPDATE SET id = excluded.id, fingerprint = excluded.fingerprint, process = excluded.process;

-- name: drop
DELETE FROM reservations WHERE id = ?1 AND completed_at IS NULL;

-- name: open_reservations
-- Those in the name of a process that are not completed.
SELECT id FROM reservations WHERE process = ?1 AND completed_at IS NULL;

-- name: give_back_reservation
-- One that its process does not know of.
DELETE FROM reservations WHERE id = ?1 AND process = ?2 AND completed_at IS NULL;

-- name: has_reserved
SELECT EXISTS (SELECT 1 FROM reservations WHERE id = ?1);

-- name: complete
UPDATE reservations SET answer = ?2, completed_at = coalesce(completed_at, ?3) WHERE id = ?1;

-- name: amend
UPDATE reservations SET answer = ?2 WHERE id = ?1 AND completed_at IS NOT NULL RETURNING id;

-- name: forget_completed
DELETE FROM reservations WHERE id IN (
    SELECT id FROM reservations WHERE completed_at <= ?1 ORDER BY completed_at LIMIT ?2
);

-- name: forget_abandoned
-- Those whose processes are dead; a walk over the few distinct owners, not over the reservations.
WITH RECURSIVE owner (process) AS (
    SELECT min(process) FROM reservations WHERE completed_at IS NULL
    UNION ALL
    SELECT (SELECT min(r.process) FROM reservations r WHERE r.completed_at IS NULL AND r.process > owner.process)
    FROM owner WHERE owner.process IS NOT NULL
)
DELETE FROM reservations WHERE id IN (
    SELECT r.id FROM owner JOIN reservations r ON r.completed_at IS NULL AND r.process = owner.process
    WHERE owner.process IS NOT NULL AND NOT EXISTS (SELECT 1 FROM processes p WHERE p.id = owner.process)
    LIMIT ?1
);
