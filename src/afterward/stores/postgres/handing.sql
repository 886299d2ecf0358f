-- name: hand_over
-- running -> queued, handed over: attempts that hold their jobs, and were not begun by anybody. One that was asked to end
-- is cancelled, unless it is followed. Of one that was taken back, it stays known when it was due, and, where its message was
-- not sent again, when that was confirmed. What a transaction of somebody else has locked is passed over.
WITH moment AS MATERIALIZED (
    SELECT coalesce($1::float8, extract(epoch FROM statement_timestamp())::float8) AS now
), mine AS MATERIALIZED (
    SELECT held.*, o.again, o.is_followed, o.is_sent, held.is_asked AND NOT o.is_followed AS is_over
    FROM unnest($2::text[], $3::int[], $4::text[], $5::float8[], $6::bool[], $7::bool[])
        AS o (id, attempt, process, again, is_followed, is_sent)
    CROSS JOIN LATERAL (
        SELECT j.ctid AS address, j.id, j.run_at, j.cancel_asked_at IS NOT NULL AS is_asked FROM afterward.jobs j
        WHERE j.id = o.id AND j.attempt = o.attempt AND j.process IS NOT DISTINCT FROM o.process AND j.status = 'running'
            AND j.token IS DISTINCT FROM 'begun'
        FOR UPDATE SKIP LOCKED
    ) held
), before AS MATERIALIZED (
    SELECT mine.*, coalesce(h.run_at, mine.run_at) AS due_at, h.handed_at AS confirmed_at
    FROM mine LEFT JOIN LATERAL (
        SELECT k.run_at, k.handed_at FROM afterward.handed k
        WHERE k.job = mine.id AND mine.run_at BETWEEN 253402214400.5 AND 253402214400.75 OFFSET 0
    ) h ON true
), moved AS (
    UPDATE afterward.jobs j SET
        status = 'queued', process = NULL, token = NULL, due = false,
        run_at = CASE WHEN before.is_followed THEN 253402214400.75 ELSE 253402214400.5 END,
        expires_at = CASE WHEN before.is_followed THEN NULL ELSE j.expires_at END
    FROM before WHERE j.ctid = before.address AND NOT before.is_over
    RETURNING j.id, j.task, j.queue, j.attempt, before.again, before.is_followed, before.is_sent, before.due_at, before.confirmed_at
), kept AS (
    INSERT INTO afterward.handed (job, task, queue, attempt, is_followed, handed_at, again_at, run_at)
    SELECT id, task, queue, attempt, is_followed, CASE WHEN is_sent THEN now ELSE coalesce(confirmed_at, now) END, now + again, due_at
    FROM moved, moment
    ON CONFLICT (job) DO UPDATE SET
        attempt = excluded.attempt, is_followed = excluded.is_followed, handed_at = excluded.handed_at,
        again_at = excluded.again_at, run_at = excluded.run_at
), gone AS (
    DELETE FROM afterward.jobs j USING before WHERE j.ctid = before.address AND before.is_over RETURNING j.*, before.due_at
), cancelled AS (
    INSERT INTO afterward.finished (
        seq, run_at, created_at, started_at, finished_at, expires_at, timeout, priority, attempt, failures, deaths, max_attempts,
        status, id, task, queue, unique_key, unfit_for, note, failure, context, arguments, cancel_asked_at, signature
    )
    SELECT
        seq, due_at, created_at, started_at, now, expires_at, timeout, priority, attempt, failures, deaths, max_attempts, 'cancelled',
        id, task, queue, unique_key, unfit_for, 'cancelled', failure, context, arguments, cancel_asked_at, signature
    FROM gone, moment
)
SELECT id FROM moved UNION ALL SELECT id FROM gone;

-- name: not_handed_over
-- Of attempts that were refused: do they still hold their job, which was locked? Or are they handed over already?
SELECT
    EXISTS (
        SELECT 1 FROM afterward.jobs j
        WHERE j.id = o.id AND j.attempt = o.attempt AND j.process IS NOT DISTINCT FROM o.process AND j.status = 'running'
            AND j.token IS DISTINCT FROM 'begun'
    ) AS holds,
    EXISTS (
        SELECT 1 FROM afterward.jobs j
        WHERE j.id = o.id AND j.attempt = o.attempt AND j.status = 'queued'
            AND j.run_at BETWEEN 253402214400.5 AND 253402214400.75
            AND EXISTS (SELECT 1 FROM afterward.handed h WHERE h.job = o.id AND h.attempt = o.attempt)
    ) AS is_handed
FROM unnest($1::text[], $2::int[], $3::text[]) WITH ORDINALITY AS o (id, attempt, process, place) ORDER BY o.place;

-- name: begin
-- queued and handed over -> running; or running -> running, of its sender, who could not say yet that it is handed over. It
-- is due when it was before, and handed over no more, unless it is followed; then its message is not sent once more. What a
-- transaction of somebody else has locked is passed over.
WITH moment AS MATERIALIZED (
    SELECT coalesce($1::float8, extract(epoch FROM statement_timestamp())::float8) AS now
), mine AS MATERIALIZED (
    SELECT s.process, found.* FROM moment CROSS JOIN unnest($2::text[], $3::text[], $4::int[], $5::text[])
        AS s (process, id, attempt, sender)
    CROSS JOIN LATERAL (
        SELECT j.ctid AS address, j.id, j.attempt, j.run_at FROM afterward.jobs j
        WHERE j.id = s.id AND j.attempt = s.attempt AND (j.expires_at IS NULL OR j.expires_at > moment.now) AND (
                (j.status = 'running' AND j.process IS NOT DISTINCT FROM s.sender AND j.token IS DISTINCT FROM 'begun')
                OR (
                    j.status = 'queued' AND j.run_at BETWEEN 253402214400.5 AND 253402214400.75
                    AND EXISTS (SELECT 1 FROM afterward.handed h WHERE h.job = j.id AND h.attempt = j.attempt OFFSET 0)
                )
            )
        FOR UPDATE OF j SKIP LOCKED
    ) found
    WHERE EXISTS (SELECT 1 FROM afterward.processes p WHERE p.id = s.process)
), kept AS MATERIALIZED (
    SELECT mine.*, h.run_at AS due_at FROM mine LEFT JOIN LATERAL (
        SELECT k.run_at FROM afterward.handed k
        WHERE k.job = mine.id AND k.attempt = mine.attempt AND mine.run_at = 253402214400.5 OFFSET 0
    ) h ON true
), begun AS (
    UPDATE afterward.jobs j SET
        status = 'running', process = kept.process, token = 'begun', started_at = now, note = NULL, unfit_for = '',
        run_at = coalesce(kept.due_at, j.run_at), due = coalesce(kept.due_at <= now, j.due)
    FROM kept, moment WHERE j.ctid = kept.address
    RETURNING j.id, j.attempt, j.process, j.task, j.arguments, j.context, j.failures, j.deaths, j.max_attempts, j.timeout,
        j.queue, j.priority, j.run_at
), forgotten AS (
    DELETE FROM afterward.handed h USING begun WHERE h.job = ANY (ARRAY[begun.id]) AND begun.run_at <> 253402214400.75
), left_alone AS (
    UPDATE afterward.handed h SET again_at = NULL FROM begun
    WHERE h.job = ANY (ARRAY[begun.id]) AND begun.run_at = 253402214400.75 AND h.again_at IS NOT NULL
)
SELECT id, attempt, process, task, arguments, context, failures, deaths, max_attempts, timeout, queue, priority FROM begun;

-- name: not_begun
-- Of messages that were refused: may they begin their attempt, which was locked? Or has this process begun it before?
-- (Those conditions are the ones above.)
SELECT
    EXISTS (
        SELECT 1 FROM afterward.jobs j
        WHERE j.id = s.id AND j.attempt = s.attempt
            AND (j.expires_at IS NULL OR j.expires_at > coalesce($1::float8, extract(epoch FROM statement_timestamp())::float8))
            AND (
                (j.status = 'running' AND j.process IS NOT DISTINCT FROM s.sender AND j.token IS DISTINCT FROM 'begun')
                OR (
                    j.status = 'queued' AND j.run_at BETWEEN 253402214400.5 AND 253402214400.75
                    AND EXISTS (SELECT 1 FROM afterward.handed h WHERE h.job = s.id AND h.attempt = s.attempt)
                )
            )
            AND EXISTS (SELECT 1 FROM afterward.processes p WHERE p.id = s.process)
    ) AS may_begin,
    begun.*
FROM unnest($2::text[], $3::text[], $4::int[], $5::text[]) WITH ORDINALITY AS s (process, id, attempt, sender, place)
LEFT JOIN LATERAL (
    SELECT j.id, j.attempt, j.process, j.task, j.arguments, j.context, j.failures, j.deaths, j.max_attempts, j.timeout,
        j.queue, j.priority
    FROM afterward.jobs j
    WHERE j.id = s.id AND j.attempt = s.attempt AND j.process IS NOT DISTINCT FROM s.process AND j.status = 'running' AND j.token = 'begun'
        AND EXISTS (SELECT 1 FROM afterward.processes p WHERE p.id = s.process)
    OFFSET 0
) begun ON true
ORDER BY s.place;

-- name: take_back
-- queued and handed over -> running, of these tasks ($3), those that are due again, the first that was due first. A walk over
-- the queues of each task; not those that are paused. One row at least: what follows the columns of the lease and its
-- wait stands in each.
WITH RECURSIVE state AS MATERIALIZED (
    SELECT
        coalesce($1::float8, extract(epoch FROM statement_timestamp())::float8) AS now,
        EXISTS (SELECT 1 FROM afterward.processes p WHERE p.id = $2) AS is_alive,
        (SELECT array_agg(queue) FROM afterward.pauses) AS paused
), walk (task, queue) AS (
    SELECT t.task, (SELECT min(h.queue) FROM afterward.handed h WHERE h.task = t.task AND h.again_at IS NOT NULL)
    FROM unnest($3::text[]) AS t (task) WHERE (SELECT is_alive FROM state)
    UNION ALL
    SELECT walk.task, (
        SELECT min(h.queue) FROM afterward.handed h WHERE h.task = walk.task AND h.again_at IS NOT NULL AND h.queue > walk.queue
    ) FROM walk WHERE walk.queue IS NOT NULL
), lane AS MATERIALIZED (
    SELECT * FROM walk WHERE queue IS NOT NULL AND (SELECT paused IS NULL OR queue <> ALL (paused) FROM state)
), found AS (
    SELECT again.* FROM state CROSS JOIN lane CROSS JOIN LATERAL (
        SELECT h.again_at, h.handed_at, h.job, held.address FROM afterward.handed h CROSS JOIN LATERAL (
            SELECT j.ctid AS address FROM afterward.jobs j
            WHERE j.id = h.job AND j.attempt = h.attempt AND j.status = 'queued'
                AND j.run_at BETWEEN 253402214400.5 AND 253402214400.75 AND (j.expires_at IS NULL OR j.expires_at > state.now)
            FOR UPDATE SKIP LOCKED
        ) held
        WHERE h.task = lane.task AND h.queue = lane.queue AND h.again_at <= state.now
        ORDER BY h.again_at LIMIT $4::int + 1
    ) again
), candidate AS MATERIALIZED (
    SELECT *, row_number() OVER (ORDER BY again_at, job) AS place FROM found
), taken AS (
    UPDATE afterward.jobs j SET status = 'running', process = $2, started_at = now
    FROM candidate, state WHERE j.ctid = candidate.address AND candidate.place <= $4
    RETURNING j.id, j.attempt, j.process, j.task, j.arguments, j.context, j.failures, j.deaths, j.max_attempts, j.timeout,
        j.queue, j.priority, greatest(0, now - candidate.handed_at) AS waited, candidate.place
)
SELECT taken.id, taken.attempt, taken.process, taken.task, taken.arguments, taken.context, taken.failures, taken.deaths,
    taken.max_attempts, taken.timeout, taken.queue, taken.priority, taken.waited,
    EXISTS (SELECT 1 FROM candidate WHERE place > $4) AS more, (
        SELECT min(later.at) - now FROM lane CROSS JOIN LATERAL (
            SELECT min(h.again_at) AS at FROM afterward.handed h
            WHERE h.task = lane.task AND h.queue = lane.queue AND h.again_at > state.now
        ) later
    ) AS next_due
FROM state LEFT JOIN taken ON true ORDER BY taken.place;

-- name: forget_handed
-- Of a page of what is kept, after a place ($2): what is of jobs that are in other hands no more. One that has ended there
-- shows in its own row when it was due. One that the version before has given to somebody by its name, with another
-- attempt, is due as any other.
WITH moment AS MATERIALIZED (
    SELECT coalesce($1::float8, extract(epoch FROM statement_timestamp())::float8) AS now
), page AS MATERIALIZED (
    SELECT h.job, h.attempt, h.run_at FROM afterward.handed h WHERE h.job > $2 ORDER BY h.job LIMIT $3
), over AS MATERIALIZED (
    SELECT page.* FROM page LEFT JOIN LATERAL (
        SELECT true AS is_there FROM afterward.jobs j
        WHERE j.id = page.job AND j.run_at BETWEEN 253402214400.5 AND 253402214400.75 OFFSET 0
    ) still ON true WHERE still.is_there IS NULL
), mine AS MATERIALIZED (
    SELECT over.*, held.address FROM over CROSS JOIN LATERAL (
        SELECT h.ctid AS address FROM afterward.handed h WHERE h.job = over.job AND h.attempt = over.attempt FOR UPDATE SKIP LOCKED
    ) held
), shown AS (
    UPDATE afterward.finished f SET run_at = mine.run_at FROM mine
    WHERE f.id = ANY (ARRAY[mine.job]) AND f.run_at BETWEEN 253402214400.5 AND 253402214400.75
), forgotten AS (
    DELETE FROM afterward.handed h USING mine WHERE h.ctid = mine.address
), astray AS MATERIALIZED (
    SELECT page.run_at, held.address FROM page CROSS JOIN LATERAL (
        SELECT j.ctid AS address FROM afterward.jobs j
        WHERE j.id = page.job AND j.attempt <> page.attempt AND j.run_at BETWEEN 253402214400.5 AND 253402214400.75
        FOR UPDATE SKIP LOCKED
    ) held
), brought_back AS (
    UPDATE afterward.jobs j SET run_at = astray.run_at, due = astray.run_at <= now FROM astray, moment WHERE j.ctid = astray.address
)
SELECT count(*) AS jobs, max(job) AS last FROM page;

-- name: bring_back
-- These attempts, of jobs in other hands, are so no more: each is due when it was before, and one that was replaced there gets no
-- other attempt. What a transaction of somebody else has locked is passed over.
WITH mine AS MATERIALIZED (
    SELECT held.* FROM unnest($1::text[], $2::int[], $3::text[]) AS e (id, attempt, process) CROSS JOIN LATERAL (
        SELECT j.ctid AS address, j.id FROM afterward.jobs j
        WHERE j.id = e.id AND j.attempt = e.attempt AND j.process IS NOT DISTINCT FROM e.process AND j.status = 'running'
            AND j.run_at BETWEEN 253402214400.5 AND 253402214400.75
        FOR UPDATE SKIP LOCKED
    ) held
), forgotten AS (
    DELETE FROM afterward.handed h USING mine WHERE h.job = ANY (ARRAY[mine.id]) RETURNING h.job, h.run_at
)
UPDATE afterward.jobs j SET
    run_at = coalesce(forgotten.run_at, j.created_at), expires_at = CASE WHEN j.replaced_by IS NULL THEN j.expires_at ELSE 0 END
FROM mine LEFT JOIN forgotten ON forgotten.job = mine.id WHERE j.ctid = mine.address;

-- name: followed
-- Jobs of these tasks that are followed, by their ids, after one. Who has taken one back has not begun it.
SELECT found.* FROM unnest($1::text[]) AS t (task) CROSS JOIN LATERAL (
    SELECT h.job AS id, h.attempt, h.task, h.handed_at, now_there.process, now_there.is_asked
    FROM afterward.handed h CROSS JOIN LATERAL (
        SELECT CASE WHEN j.token = 'begun' THEN j.process END AS process, j.cancel_asked_at IS NOT NULL AS is_asked FROM afterward.jobs j
        WHERE j.id = h.job AND j.attempt = h.attempt AND j.run_at = 253402214400.75 OFFSET 0
    ) now_there
    WHERE h.task = t.task AND h.is_followed AND h.job > $2 ORDER BY h.job LIMIT $3
) found ORDER BY found.id LIMIT $3;
