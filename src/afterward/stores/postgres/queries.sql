-- name: join
-- A process shows that it lives. A row that is there stays as it is.
INSERT INTO afterward.processes (id, pid, host, has_lock, joined_at)
VALUES ($2, $3, $4, $5, coalesce($1::float8, extract(epoch FROM statement_timestamp())::float8)) ON CONFLICT (id) DO NOTHING;

-- name: leave
-- running -> queued, or held -> queued: what is in the name of a process that leaves. (What was taken back from other hands, or
-- is followed there, is handed over again so, and whoever follows it was asked to end it: migration 9.)
UPDATE afterward.jobs SET status = 'queued', process = NULL, token = NULL
WHERE process = $1 AND (cancel_asked_at IS NULL OR run_at = 253402214400.75);

-- name: leave_asked
-- running -> cancelled: the same of what has been asked to end. After the others: what is asked meanwhile is among these.
WITH gone AS (
    DELETE FROM afterward.jobs WHERE process = $2 AND cancel_asked_at IS NOT NULL AND run_at <> 253402214400.75 RETURNING *
)
INSERT INTO afterward.finished (
    seq, run_at, created_at, started_at, finished_at, expires_at, timeout, priority, attempt, failures, deaths, max_attempts,
    status, id, task, queue, unique_key, unfit_for, note, failure, context, arguments, cancel_asked_at, signature
)
SELECT
    seq, run_at, created_at, started_at, coalesce($1::float8, extract(epoch FROM statement_timestamp())::float8), expires_at, timeout,
    priority, attempt, failures, deaths, max_attempts, 'cancelled', id, task, queue, unique_key, unfit_for, 'cancelled', failure, context,
    arguments, cancel_asked_at, signature
FROM gone;

-- name: gone
-- It has left.
WITH silent AS (
    DELETE FROM afterward.served WHERE process = $1
)
DELETE FROM afterward.processes WHERE id = $1;

-- name: beat
-- One beat more; and what there is to see of the others, which of its jobs are asked to end, and ($3) what is in this
-- process's name. That was long where some $4 entries of the index led to no job: they are dead, and may not be removed yet.
WITH RECURSIVE me AS (
    UPDATE afterward.processes SET beat = beat + 1, waits = $2 WHERE id = $1
    RETURNING id, pg_stat_get_xact_tuples_returned('afterward.jobs_taken'::regclass) AS entries_read
), held AS MATERIALIZED (
    SELECT j.id, j.attempt, j.token FROM afterward.jobs j WHERE j.process = $1 AND $3::bool
), owner (process) AS (
    SELECT min(process) FROM afterward.jobs WHERE process IS NOT NULL AND $3::bool
    UNION ALL
    SELECT (SELECT min(j.process) FROM afterward.jobs j WHERE j.process IS NOT NULL AND j.process > owner.process)
    FROM owner WHERE owner.process IS NOT NULL
)
SELECT
    (SELECT json_object_agg(p.id, json_build_array(
        p.beat, p.has_lock AND pg_try_advisory_xact_lock_shared(hashtextextended(p.id, 0))
    )) FROM afterward.processes p WHERE p.id <> $1) AS others,
    (SELECT json_object_agg(held.id, json_build_array(held.attempt, held.token)) FROM held) AS held,
    (
        SELECT json_object_agg(j.id, j.attempt) FROM afterward.jobs j
        WHERE j.process = $1 AND j.cancel_asked_at IS NOT NULL AND j.status = 'running'
    ) AS asked,
    (SELECT json_agg(f.id) FROM afterward.files f WHERE f.job IS NULL AND f.process = $1 AND $3::bool) AS files,
    (
        SELECT json_agg(r.id) FROM afterward.reservations r WHERE r.process = $1 AND r.answer IS NULL AND $3::bool
    ) AS reservations,
    EXISTS (
        SELECT 1 FROM owner WHERE owner.process IS NOT NULL
            AND NOT EXISTS (SELECT 1 FROM afterward.processes p WHERE p.id = owner.process)
    ) AS has_orphans,
    pg_stat_get_xact_tuples_returned('afterward.jobs_taken'::regclass) - me.entries_read
        > $4 + 2 * (SELECT count(*) FROM held) AS was_long
FROM me;

-- name: give_back
-- running -> queued, or held -> queued: attempts in a process's name that it does not know of
UPDATE afterward.jobs j SET status = 'queued', process = NULL, token = NULL
FROM unnest($2::text[], $3::int[]) AS unknown (id, attempt)
WHERE j.id = ANY (ARRAY[unknown.id]) AND j.attempt = unknown.attempt AND j.process IS NOT DISTINCT FROM $1
    AND (j.cancel_asked_at IS NULL OR j.run_at = 253402214400.75) RETURNING j.id;

-- name: give_back_asked
-- running -> cancelled: the same of what has been asked to end
WITH gone AS (
    DELETE FROM afterward.jobs j USING unnest($3::text[], $4::int[]) AS unknown (id, attempt)
    WHERE j.id = ANY (ARRAY[unknown.id]) AND j.attempt = unknown.attempt AND j.process = $2
        AND j.cancel_asked_at IS NOT NULL AND j.run_at <> 253402214400.75 RETURNING j.*
)
INSERT INTO afterward.finished (
    seq, run_at, created_at, started_at, finished_at, expires_at, timeout, priority, attempt, failures, deaths, max_attempts,
    status, id, task, queue, unique_key, unfit_for, note, failure, context, arguments, cancel_asked_at, signature
)
SELECT
    seq, run_at, created_at, started_at, coalesce($1::float8, extract(epoch FROM statement_timestamp())::float8), expires_at, timeout,
    priority, attempt, failures, deaths, max_attempts, 'cancelled', id, task, queue, unique_key, unfit_for, 'cancelled', failure, context,
    arguments, cancel_asked_at, signature
FROM gone RETURNING id;

-- name: drop_files
-- No process is storing them any more.
UPDATE afterward.files SET process = '' WHERE id = ANY ($2::text[]) AND process = $1 AND job IS NULL;

-- name: bury
-- The fence of reaping: from here on nothing can be claimed or stored in these processes' names.
WITH buried AS (
    DELETE FROM afterward.processes p USING unnest($1::text[], $2::bigint[]) AS dead (id, beat)
    WHERE p.id = dead.id AND (dead.beat IS NULL OR dead.beat = p.beat) RETURNING p.id
)
DELETE FROM afterward.served s USING buried WHERE s.process = buried.id;

-- name: adopt
-- running -> queued (worker died), or cancelled where it was asked to end; queued and held -> queued: a page of what
-- belongs to processes without a row.
-- What was taken back from other hands, or is followed there, is handed over again, and has not died.
-- A walk over the few distinct owners, not over the jobs.
WITH RECURSIVE moment (now) AS (
    SELECT coalesce($1::float8, extract(epoch FROM statement_timestamp())::float8)
), owner (process) AS (
    SELECT min(process) FROM afterward.jobs WHERE process IS NOT NULL
    UNION ALL
    SELECT (SELECT min(j.process) FROM afterward.jobs j WHERE j.process IS NOT NULL AND j.process > owner.process)
    FROM owner WHERE owner.process IS NOT NULL
), orphan AS MATERIALIZED (
    SELECT found.* FROM owner CROSS JOIN LATERAL (
        SELECT j.ctid AS address, j.id, j.attempt, j.started_at,
            j.status = 'running' AND j.run_at NOT BETWEEN 253402214400.5 AND 253402214400.75 AS has_died,
            j.cancel_asked_at IS NOT NULL AND j.run_at <> 253402214400.75 AS is_over
        FROM afterward.jobs j WHERE j.process = owner.process LIMIT $2 FOR UPDATE SKIP LOCKED
    ) found
    WHERE NOT EXISTS (SELECT 1 FROM afterward.processes p WHERE p.id = owner.process) LIMIT $2
), remembered AS (
    INSERT INTO afterward.attempts (job, number, outcome, started_at, ended_at, failure, signature)
    SELECT id, attempt, 'died', started_at, now, $3, $6 FROM orphan, moment WHERE has_died ON CONFLICT DO NOTHING
), moved AS (
    UPDATE afterward.jobs j SET
        deaths = CASE WHEN has_died THEN least(j.deaths + 1, greatest(j.deaths, $4::int)) ELSE j.deaths END,
        due = CASE WHEN has_died AND j.deaths + 1 >= $4::int THEN false ELSE j.due END,
        run_at = CASE WHEN has_died AND j.deaths + 1 >= $4::int THEN now + $5::float8 ELSE j.run_at END,
        status = 'queued', process = NULL, token = NULL
    FROM orphan, moment WHERE j.ctid = orphan.address AND NOT is_over RETURNING 1
), gone AS (
    DELETE FROM afterward.jobs j USING orphan WHERE j.ctid = orphan.address AND is_over RETURNING j.*, has_died
), cancelled AS (
    INSERT INTO afterward.finished (
        seq, run_at, created_at, started_at, finished_at, expires_at, timeout, priority, attempt, failures, deaths, max_attempts,
        status, id, task, queue, unique_key, unfit_for, note, failure, context, arguments, cancel_asked_at, signature
    )
    SELECT
        seq, run_at, created_at, started_at, now, expires_at, timeout, priority, attempt, failures,
        CASE WHEN has_died THEN least(deaths + 1, greatest(deaths, $4::int)) ELSE deaths END, max_attempts, 'cancelled', id,
        task, queue, unique_key, unfit_for, 'cancelled', failure, context, arguments, cancel_asked_at, signature
    FROM gone, moment RETURNING 1
)
SELECT (SELECT count(*) FROM moved) AS queued, (SELECT count(*) FROM cancelled) AS cancelled;

-- name: enqueue
-- new -> queued, held by a process, free (null), or already leased to it as attempt 1: jobs without files, and of each
-- unique key one. What is here already, whatever became of it, is not stored again. Answers the processes that live.
-- With whose they are, and the requests that made them ($18), where something is known of that.
WITH moment AS MATERIALIZED (
    SELECT coalesce($1::float8, extract(epoch FROM statement_timestamp())::float8) AS now
), alive AS MATERIALIZED (
    SELECT p.id FROM afterward.processes p WHERE p.id = ANY ($2::text[])
), entered AS (
    INSERT INTO afterward.jobs (
        id, task, queue, priority, status, attempt, process, due, run_at, unique_key, arguments, context,
        created_at, started_at, max_attempts, timeout, expires_at
    )
    SELECT
        id, task, queue, priority, CASE WHEN is_leased THEN 'running' ELSE 'queued' END, is_leased::int, process,
        coalesce(run_at, now + delay) <= now, coalesce(run_at, now + delay), unique_key, arguments, context,
        now, CASE WHEN is_leased THEN now END, max_attempts, timeout, coalesce(expires_at, now + expires_in)
    FROM moment, unnest(
        $3::text[], $4::text[], $5::text[], $6::bigint[], $7::bool[], $8::text[], $9::float8[], $10::float8[], $11::text[],
        $12::text[], $13::text[], $14::int[], $15::float8[], $16::float8[], $17::float8[]
    ) WITH ORDINALITY AS new (
        id, task, queue, priority, is_leased, process, delay, run_at, unique_key,
        arguments, context, max_attempts, timeout, expires_at, expires_in, place
    )
    WHERE (process IS NULL OR EXISTS (SELECT 1 FROM alive WHERE alive.id = new.process))
        AND NOT EXISTS (SELECT 1 FROM afterward.finished f WHERE f.id = new.id OFFSET 0)
    ORDER BY place
    ON CONFLICT DO NOTHING RETURNING jobs.id
), told AS (
    INSERT INTO afterward.origins (job, owner, origin)
    SELECT o.job, o.owner, o.origin FROM unnest($18::text[], $19::text[], $20::text[], $21::text[]) AS o (job, owner, origin, process)
    WHERE o.process IS NULL OR EXISTS (SELECT 1 FROM alive WHERE alive.id = o.process)
    ON CONFLICT DO NOTHING
)
SELECT ARRAY(SELECT id FROM alive) AS alive, ARRAY(SELECT id FROM entered) AS entered;

-- name: enqueue_one
-- The same of one plain job for anybody, and then a hint, as `notify` gives it: of which a repetition does no harm.
CALL afterward.enqueue_one($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16);

-- name: tell_origin
-- Whose a job is that has been stored, and what request made it.
INSERT INTO afterward.origins (job, owner, origin) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING;

-- name: present
-- Which of these ids are here: of a job, or (true) of a call that leads to one.
SELECT id, false AS leads FROM afterward.jobs WHERE id = ANY ($1::text[])
UNION ALL SELECT id, false FROM afterward.finished WHERE id = ANY ($1::text[])
UNION ALL SELECT id, true FROM afterward.aliases WHERE id = ANY ($1::text[]);

-- name: holder
-- Who has a unique key, kept as it is until the end of the transaction.
SELECT id, status, coalesce(expires_at <= coalesce($1::float8, extract(epoch FROM statement_timestamp())::float8), false) AS has_expired,
    run_at = 253402214400.75 AS is_followed
FROM afterward.jobs WHERE task = $2 AND unique_key = $3 AND replaced_by IS NULL FOR UPDATE;

-- name: alive
-- Which of these processes have a row.
SELECT id FROM afterward.processes WHERE id = ANY ($1::text[]);

-- name: alias
-- The id of a call that found its unique key taken leads to the job that has it.
INSERT INTO afterward.aliases (id, job) VALUES ($1, $2) ON CONFLICT DO NOTHING;

-- name: replace_running
-- It keeps its attempt, and gets no other: it has expired from the beginning of time, however clocks are set. What is
-- followed, in other hands, does not expire as long as it is.
UPDATE afterward.jobs SET replaced_by = $2, expires_at = CASE WHEN run_at <> 253402214400.75 THEN 0 END
WHERE id = $1 AND (status = 'running' OR run_at = 253402214400.75);

-- name: cancel
-- queued -> cancelled, held or not; with a note. Not what is followed, in other hands.
WITH gone AS (
    DELETE FROM afterward.jobs WHERE id = $2 AND status = 'queued' AND run_at <> 253402214400.75 RETURNING *
)
INSERT INTO afterward.finished (
    seq, run_at, created_at, started_at, finished_at, expires_at, timeout, priority, attempt, failures, deaths, max_attempts,
    status, id, task, queue, unique_key, unfit_for, note, failure, context, arguments, cancel_asked_at, signature
)
SELECT
    seq, run_at, created_at, started_at, coalesce($1::float8, extract(epoch FROM statement_timestamp())::float8), expires_at, timeout,
    priority, attempt, failures, deaths, max_attempts, 'cancelled', id, task, queue, unique_key, unfit_for, $3::text, failure, context, arguments,
    cancel_asked_at, signature
FROM gone RETURNING id;

-- name: ask_to_end
-- One that runs, or is followed, is asked to end; since when, the first who asked says.
UPDATE afterward.jobs SET cancel_asked_at = coalesce(cancel_asked_at, $1::float8, extract(epoch FROM statement_timestamp())::float8)
WHERE id = $2 AND (status = 'running' OR run_at = 253402214400.75) RETURNING id;

-- name: hasten
-- What waits for its time is due now. So is what is in other hands, and is so no more; though it was replaced there, it gets
-- no other attempt.
UPDATE afterward.jobs SET due = true, run_at = coalesce($1::float8, extract(epoch FROM statement_timestamp())::float8),
    expires_at = CASE WHEN replaced_by IS NULL THEN expires_at ELSE 0 END
WHERE id = $2 AND status = 'queued' AND run_at > coalesce($1::float8, extract(epoch FROM statement_timestamp())::float8)
    AND cancel_asked_at IS NULL RETURNING id;

-- name: expire
-- queued -> cancelled: no attempt of them may begin any more
WITH moment AS MATERIALIZED (
    SELECT coalesce($1::float8, extract(epoch FROM statement_timestamp())::float8) AS now
), expired AS MATERIALIZED (
    SELECT j.ctid AS address FROM afterward.jobs j
    WHERE j.status = 'queued' AND j.expires_at <= coalesce($1::float8, extract(epoch FROM statement_timestamp())::float8)
        AND j.process IS NULL
    ORDER BY j.expires_at LIMIT $2 FOR UPDATE SKIP LOCKED
), gone AS (
    DELETE FROM afterward.jobs j USING expired WHERE j.ctid = expired.address RETURNING j.*
)
INSERT INTO afterward.finished (
    seq, run_at, created_at, started_at, finished_at, expires_at, timeout, priority, attempt, failures, deaths, max_attempts,
    status, id, task, queue, unique_key, unfit_for, note, failure, context, arguments, cancel_asked_at, signature
)
SELECT
    seq, run_at, created_at, started_at, now, expires_at, timeout, priority, attempt, failures, deaths, max_attempts, 'cancelled',
    id, task, queue, unique_key, unfit_for, coalesce('replaced by ' || replaced_by, 'expired'), failure, context, arguments,
    cancel_asked_at, signature
FROM gone, moment RETURNING id;

-- name: promote
-- Their time has come.
UPDATE afterward.jobs SET due = true WHERE ctid = ANY (ARRAY(
    SELECT ctid FROM afterward.jobs
    WHERE status = 'queued' AND NOT due AND run_at <= coalesce($1::float8, extract(epoch FROM statement_timestamp())::float8)
    ORDER BY run_at LIMIT $2 FOR UPDATE SKIP LOCKED
));

-- name: release
-- queued and held -> queued
UPDATE afterward.jobs j SET process = NULL FROM unnest($1::text[], $2::text[]) AS held (id, process)
WHERE j.id = ANY (ARRAY[held.id]) AND j.process IS NOT DISTINCT FROM held.process AND j.status = 'queued' RETURNING j.id, held.process;

-- name: claim
-- queued -> running, for what each of some kinds of room wants ($4, JSON). Nothing when there is something to make
-- ready or to expire before ($5), or when this token has been given something. One row at least: what follows the
-- columns of the lease stands in each; and bookmarks (below), where it has read some $6 entries of the index that led to
-- no job: dead ones, which may not be removed yet. (A page of such as nobody looks at again costs as much as 20.)
WITH RECURSIVE state AS MATERIALIZED (
    SELECT
        coalesce($1::float8, extract(epoch FROM statement_timestamp())::float8) AS now,
        EXISTS (SELECT 1 FROM afterward.processes p WHERE p.id = $2) AS is_alive,
        (SELECT array_agg(queue) FROM afterward.pauses) AS paused,
        $5::bool AND (
            EXISTS (
                SELECT 1 FROM afterward.jobs WHERE status = 'queued' AND NOT due
                    AND run_at <= coalesce($1::float8, extract(epoch FROM statement_timestamp())::float8)
            ) OR EXISTS (
                SELECT 1 FROM afterward.jobs WHERE status = 'queued' AND process IS NULL
                    AND expires_at <= coalesce($1::float8, extract(epoch FROM statement_timestamp())::float8)
            )
        ) AS needs_care,
        pg_stat_get_xact_tuples_returned('afterward.jobs_ready'::regclass)
            + 20 * pg_stat_get_xact_blocks_fetched('afterward.jobs_ready'::regclass) AS read_before
), again AS MATERIALIZED (
    SELECT j.* FROM afterward.jobs j
    WHERE j.process = $2 AND j.token = $3 AND j.status = 'running' AND (SELECT is_alive FROM state)
), lane (queue, task, unfit_for) AS (
    (
        SELECT j.queue, j.task, j.unfit_for FROM afterward.jobs j
        WHERE j.status = 'queued' AND j.due AND j.process IS NULL
            AND (SELECT is_alive AND NOT needs_care FROM state) AND NOT EXISTS (SELECT 1 FROM again)
        ORDER BY j.queue, j.task, j.unfit_for LIMIT 1
    )
    UNION ALL
    SELECT next.queue, next.task, next.unfit_for FROM lane CROSS JOIN LATERAL (
        SELECT j.queue, j.task, j.unfit_for FROM afterward.jobs j
        WHERE j.status = 'queued' AND j.due AND j.process IS NULL
            AND (j.queue, j.task, j.unfit_for) > (lane.queue, lane.task, lane.unfit_for)
        ORDER BY j.queue, j.task, j.unfit_for LIMIT 1
    ) next
), wanted AS MATERIALIZED (
    SELECT * FROM jsonb_to_recordset($4::jsonb) AS w (number int, tasks jsonb, queues jsonb, unfit_for jsonb, room int)
), found AS (
    SELECT wanted.number, wanted.room, ready.* FROM wanted CROSS JOIN lane CROSS JOIN LATERAL (
        SELECT j.ctid AS address, j.priority, j.run_at, j.seq FROM afterward.jobs j
        WHERE j.status = 'queued' AND j.due AND j.process IS NULL
            AND j.queue = lane.queue AND j.task = lane.task AND j.unfit_for = lane.unfit_for
        ORDER BY j.priority DESC, j.run_at, j.seq LIMIT wanted.room + 1 FOR UPDATE SKIP LOCKED
    ) ready
    WHERE wanted.tasks ? lane.task AND (wanted.queues IS NULL OR wanted.queues ? lane.queue)
        AND NOT wanted.unfit_for ? lane.unfit_for AND (SELECT paused IS NULL OR lane.queue <> ALL (paused) FROM state)
), candidate AS MATERIALIZED (
    SELECT *, row_number() OVER (PARTITION BY number ORDER BY priority DESC, run_at, seq) AS place FROM found
), look AS MATERIALIZED (
    SELECT
        EXISTS (SELECT 1 FROM candidate WHERE place > room) AS has_more,
        pg_stat_get_xact_tuples_returned('afterward.jobs_ready'::regclass)
            + 20 * pg_stat_get_xact_blocks_fetched('afterward.jobs_ready'::regclass) - (SELECT read_before FROM state)
            > $6 + 2 * (SELECT count(*) FROM candidate) AS was_long
), claimed AS (
    UPDATE afterward.jobs j SET
        status = 'running', process = $2, token = $3, attempt = j.attempt + 1, started_at = now, note = NULL, unfit_for = ''
    FROM candidate, state
    WHERE j.ctid = candidate.address AND candidate.place <= candidate.room AND (j.expires_at IS NULL OR j.expires_at > now)
    RETURNING j.id, j.attempt, j.process, j.task, j.arguments, j.context, j.failures, j.deaths, j.max_attempts, j.timeout,
        j.queue, j.priority, candidate.number, candidate.place
), given AS (
    SELECT * FROM claimed
    UNION ALL
    SELECT id, attempt, process, task, arguments, context, failures, deaths, max_attempts, timeout, queue, priority, 0, seq FROM again
)
SELECT given.id, given.attempt, given.process, given.task, given.arguments, given.context, given.failures, given.deaths,
    given.max_attempts, given.timeout, given.queue, given.priority,
    has_more OR EXISTS (SELECT 1 FROM again) AS more,
    (SELECT min(run_at) FROM afterward.jobs WHERE status = 'queued' AND NOT due AND run_at < 253402214400.5) - now AS next_due,
    EXISTS (
        SELECT 1 FROM lane WHERE (SELECT paused IS NULL OR lane.queue <> ALL (paused) FROM state) AND NOT EXISTS (
            SELECT 1 FROM wanted WHERE wanted.tasks ? lane.task AND (wanted.queues IS NULL OR wanted.queues ? lane.queue)
                AND NOT wanted.unfit_for ? lane.unfit_for
        )
    ) AS for_others,
    needs_care, is_alive, paused,
    CASE WHEN was_long THEN (
        SELECT coalesce(jsonb_agg(last), '[]') FROM (
            SELECT DISTINCT ON (j.queue, j.task, j.unfit_for, j.priority)
                j.queue, j.task, j.unfit_for, j.priority, j.run_at, j.seq
            FROM candidate JOIN afterward.jobs j ON j.ctid = candidate.address
            ORDER BY j.queue, j.task, j.unfit_for, j.priority, place > room, CASE WHEN place <= room THEN -place ELSE place END
        ) last
    ) END AS bookmarks
FROM state CROSS JOIN look LEFT JOIN given ON true
ORDER BY given.number, given.place;

-- name: claim_on
-- queued -> running, as above, but only what stands at these bookmarks ($5, JSON) or behind them: each says where in a
-- stream, that is the jobs of a lane with one priority, the last claim ended. So no entry before it is read, dead or not.
WITH state AS MATERIALIZED (
    SELECT
        coalesce($1::float8, extract(epoch FROM statement_timestamp())::float8) AS now,
        EXISTS (SELECT 1 FROM afterward.processes p WHERE p.id = $2) AS is_alive,
        (SELECT array_agg(queue) FROM afterward.pauses) AS paused
), again AS MATERIALIZED (
    SELECT j.* FROM afterward.jobs j
    WHERE j.process = $2 AND j.token = $3 AND j.status = 'running' AND (SELECT is_alive FROM state)
), wanted AS MATERIALIZED (
    SELECT * FROM jsonb_to_recordset($4::jsonb) AS w (number int, tasks jsonb, queues jsonb, unfit_for jsonb, room int)
), found AS (
    SELECT wanted.number, wanted.room, ready.* FROM wanted CROSS JOIN jsonb_to_recordset($5::jsonb) AS mark (
        queue text, task text, unfit_for text, priority bigint, run_at float8, seq bigint
    ) CROSS JOIN LATERAL (
        SELECT j.ctid AS address, j.priority, j.run_at, j.seq FROM afterward.jobs j
        WHERE j.status = 'queued' AND j.due AND j.process IS NULL
            AND j.queue = mark.queue AND j.task = mark.task AND j.unfit_for = mark.unfit_for AND j.priority = mark.priority
            AND (j.run_at, j.seq) >= (mark.run_at, mark.seq)
        ORDER BY j.run_at, j.seq LIMIT wanted.room + 1 FOR UPDATE SKIP LOCKED
    ) ready
    WHERE (SELECT is_alive FROM state) AND NOT EXISTS (SELECT 1 FROM again)
        AND wanted.tasks ? mark.task AND (wanted.queues IS NULL OR wanted.queues ? mark.queue)
        AND NOT wanted.unfit_for ? mark.unfit_for AND (SELECT paused IS NULL OR mark.queue <> ALL (paused) FROM state)
), candidate AS MATERIALIZED (
    SELECT *, row_number() OVER (PARTITION BY number ORDER BY priority DESC, run_at, seq) AS place FROM found
), claimed AS (
    UPDATE afterward.jobs j SET
        status = 'running', process = $2, token = $3, attempt = j.attempt + 1, started_at = now, note = NULL, unfit_for = ''
    FROM candidate, state
    WHERE j.ctid = candidate.address AND candidate.place <= candidate.room AND (j.expires_at IS NULL OR j.expires_at > now)
    RETURNING j.id, j.attempt, j.process, j.task, j.arguments, j.context, j.failures, j.deaths, j.max_attempts, j.timeout,
        j.queue, j.priority, candidate.number, candidate.place
), given AS (
    SELECT * FROM claimed
    UNION ALL
    SELECT id, attempt, process, task, arguments, context, failures, deaths, max_attempts, timeout, queue, priority, 0, seq FROM again
)
SELECT given.id, given.attempt, given.process, given.task, given.arguments, given.context, given.failures, given.deaths,
    given.max_attempts, given.timeout, given.queue, given.priority,
    is_alive, paused, (
        SELECT coalesce(jsonb_agg(last), '[]') FROM (
            SELECT DISTINCT ON (j.queue, j.task, j.unfit_for, j.priority)
                j.queue, j.task, j.unfit_for, j.priority, j.run_at, j.seq
            FROM candidate JOIN afterward.jobs j ON j.ctid = candidate.address
            ORDER BY j.queue, j.task, j.unfit_for, j.priority, place > room, CASE WHEN place <= room THEN -place ELSE place END
        ) last
    ) AS bookmarks
FROM state LEFT JOIN given ON true
ORDER BY given.number, given.place;

-- name: claim_named
-- queued -> running, for jobs that a person names, due or not; not what is in other hands.
WITH moment AS MATERIALIZED (
    SELECT coalesce($1::float8, extract(epoch FROM statement_timestamp())::float8) AS now
), wanted AS MATERIALIZED (
    SELECT * FROM jsonb_to_recordset($4::jsonb) AS w (number int, tasks jsonb, queues jsonb, unfit_for jsonb, room int, "only" jsonb)
), candidate AS MATERIALIZED (
    SELECT j.ctid AS address, wanted.room, j.priority, j.run_at, j.seq FROM afterward.jobs j CROSS JOIN wanted
    WHERE j.id = ANY ($5::text[]) AND wanted."only" ? j.id AND j.status = 'queued' AND j.process IS NULL
        AND j.run_at NOT BETWEEN 253402214400.5 AND 253402214400.75
        AND wanted.tasks ? j.task AND (wanted.queues IS NULL OR wanted.queues ? j.queue) AND NOT wanted.unfit_for ? j.unfit_for
        AND EXISTS (SELECT 1 FROM afterward.processes p WHERE p.id = $2)
        AND NOT EXISTS (SELECT 1 FROM afterward.jobs a WHERE a.process = $2 AND a.token = $3 AND a.status = 'running')
    ORDER BY j.priority DESC, j.run_at, j.seq FOR UPDATE OF j SKIP LOCKED
), placed AS (
    SELECT address, room, row_number() OVER (ORDER BY priority DESC, run_at, seq) AS place FROM candidate
)
UPDATE afterward.jobs j SET
    status = 'running', process = $2, token = $3, attempt = j.attempt + 1, started_at = now, note = NULL, unfit_for = ''
FROM placed, moment
WHERE j.ctid = placed.address AND placed.place <= placed.room AND (j.expires_at IS NULL OR j.expires_at > now)
RETURNING j.id, j.attempt, j.process, j.task, j.arguments, j.context, j.failures, j.deaths, j.max_attempts, j.timeout, j.queue, j.priority,
    placed.place;

-- name: end_for_good
-- running -> succeeded | failed | cancelled. What a transaction of somebody else has locked is passed over.
WITH moment AS MATERIALIZED (
    SELECT coalesce($1::float8, extract(epoch FROM statement_timestamp())::float8) AS now
), mine AS MATERIALIZED (
    SELECT e.outcome, e.result, e.failure, e.has_died, e.said, e.signed, held.address
    FROM unnest($2::text[], $3::int[], $4::text[], $5::text[], $6::text[], $7::text[], $8::bool[], $9::text[], $10::text[])
        AS e (id, attempt, process, outcome, result, failure, has_died, said, signed)
    CROSS JOIN LATERAL (
        SELECT j.ctid AS address FROM afterward.jobs j
        WHERE j.id = e.id AND j.attempt = e.attempt AND j.process IS NOT DISTINCT FROM e.process AND j.status = 'running'
        FOR UPDATE SKIP LOCKED
    ) held
), gone AS (
    DELETE FROM afterward.jobs j USING mine WHERE j.ctid = mine.address
    RETURNING j.*, mine.outcome, mine.result, mine.failure AS told, mine.has_died, mine.said, mine.signed
), remembered AS (
    INSERT INTO afterward.attempts (job, number, outcome, started_at, ended_at, failure, note, signature)
    SELECT id, attempt, outcome, started_at, now, told, said, coalesce(signed, '') FROM gone, moment
    WHERE outcome <> 'succeeded' ON CONFLICT DO NOTHING
)
INSERT INTO afterward.finished (
    seq, run_at, created_at, started_at, finished_at, expires_at, timeout, priority, attempt, failures, deaths, max_attempts,
    status, id, task, queue, unique_key, unfit_for, note, failure, context, arguments, result, cancel_asked_at, signature
)
SELECT
    seq, run_at, created_at, started_at, now, expires_at, timeout, priority, attempt,
    failures + (outcome = 'failed')::int, deaths + has_died::int, max_attempts,
    CASE WHEN outcome IN ('succeeded', 'cancelled') THEN outcome ELSE 'failed' END, id, task, queue, unique_key, unfit_for,
    coalesce(said, note), coalesce(told, failure), context, arguments, result, cancel_asked_at,
    CASE WHEN told IS NULL THEN signature ELSE coalesce(signed, '') END
FROM gone, moment RETURNING id;

-- name: end_for_now
-- running -> queued, or cancelled where it was asked to end. What a transaction of somebody else has locked is passed over.
-- So is what is followed, in other hands.
WITH moment AS MATERIALIZED (
    SELECT coalesce($1::float8, extract(epoch FROM statement_timestamp())::float8) AS now
), mine AS MATERIALIZED (
    SELECT e.*, held.address, held.is_asked
    FROM unnest($2::text[], $3::int[], $4::text[], $5::text[], $6::text[], $7::text[], $8::text[], $9::float8[], $10::text[])
        AS e (id, attempt, process, outcome, failure, note, unfit_for, delay, signed)
    CROSS JOIN LATERAL (
        SELECT j.ctid AS address, j.cancel_asked_at IS NOT NULL AS is_asked FROM afterward.jobs j
        WHERE j.id = e.id AND j.attempt = e.attempt AND j.process IS NOT DISTINCT FROM e.process AND j.status = 'running'
            AND j.run_at NOT BETWEEN 253402214400.5 AND 253402214400.75
        FOR UPDATE SKIP LOCKED
    ) held
), moved AS (
    UPDATE afterward.jobs j SET
        status = 'queued', process = NULL, token = NULL, due = mine.delay <= 0,
        run_at = CASE WHEN mine.delay > 0 THEN now + mine.delay ELSE j.run_at END,
        failures = j.failures + (mine.outcome = 'retry')::int, deaths = j.deaths + (mine.outcome = 'died')::int,
        failure = coalesce(mine.failure, j.failure), note = mine.note, unfit_for = mine.unfit_for,
        signature = CASE WHEN mine.failure IS NULL THEN j.signature ELSE mine.signed END,
        failed_at = CASE WHEN mine.failure IS NULL THEN j.failed_at ELSE now END
    FROM mine, moment WHERE j.ctid = mine.address AND NOT mine.is_asked
    RETURNING j.id, j.attempt, mine.outcome, j.started_at, mine.failure, mine.note, mine.unfit_for, mine.signed
), gone AS (
    DELETE FROM afterward.jobs j USING mine WHERE j.ctid = mine.address AND mine.is_asked
    RETURNING j.*, mine.outcome, mine.failure AS told, mine.note AS said, mine.unfit_for AS unfit, mine.signed
), cancelled AS (
    INSERT INTO afterward.finished (
        seq, run_at, created_at, started_at, finished_at, expires_at, timeout, priority, attempt, failures, deaths, max_attempts,
        status, id, task, queue, unique_key, unfit_for, note, failure, context, arguments, cancel_asked_at, signature
    )
    SELECT
        seq, run_at, created_at, started_at, now, expires_at, timeout, priority, attempt, failures + (outcome = 'retry')::int,
        deaths + (outcome = 'died')::int, max_attempts, 'cancelled', id, task, queue, unique_key, unfit, 'cancelled',
        coalesce(told, failure), context, arguments, cancel_asked_at, CASE WHEN told IS NULL THEN signature ELSE signed END
    FROM gone, moment
), ended AS (
    SELECT * FROM moved
    UNION ALL
    SELECT id, attempt, outcome, started_at, told, said, unfit, signed FROM gone
), remembered AS (
    INSERT INTO afterward.attempts (job, number, outcome, started_at, ended_at, failure, note, signature)
    SELECT id, attempt, outcome, started_at, now, failure, note, signed FROM ended, moment WHERE unfit_for = '' ON CONFLICT DO NOTHING
)
SELECT id FROM ended;

-- name: refused
-- Of attempts whose end was refused: do they still hold their job, which was locked, or is followed? Or is it just how they
-- ended?
SELECT
    EXISTS (
        SELECT 1 FROM afterward.jobs j
        WHERE j.id = e.id AND j.attempt = e.attempt AND j.process IS NOT DISTINCT FROM e.process AND j.status = 'running'
    ) AS holds,
    EXISTS (
        SELECT 1 FROM afterward.jobs j
        WHERE j.id = e.id AND j.attempt = e.attempt AND j.process IS NOT DISTINCT FROM e.process AND j.status = 'running'
            AND j.run_at BETWEEN 253402214400.5 AND 253402214400.75
    ) AS is_elsewhere,
    CASE WHEN e.outcome = 'succeeded' THEN EXISTS (
        SELECT 1 FROM afterward.finished f
        WHERE f.id = e.id AND f.attempt = e.attempt AND f.status = 'succeeded' AND f.result IS NOT DISTINCT FROM e.result
    ) WHEN e.unfit_for <> '' THEN EXISTS (
        SELECT 1 FROM afterward.jobs j WHERE j.id = e.id AND j.attempt = e.attempt AND j.unfit_for = e.unfit_for
        UNION ALL
        SELECT 1 FROM afterward.finished f WHERE f.id = e.id AND f.attempt = e.attempt AND f.unfit_for = e.unfit_for
    ) ELSE EXISTS (
        SELECT 1 FROM afterward.attempts a
        WHERE a.job = e.id AND a.number = e.attempt AND a.outcome = e.outcome
            AND a.failure IS NOT DISTINCT FROM e.failure AND a.note IS NOT DISTINCT FROM e.note
    ) END AS did
FROM unnest($1::text[], $2::int[], $3::text[], $4::text[], $5::text[], $6::text[], $7::text[], $8::text[])
    WITH ORDINALITY AS e (id, attempt, process, outcome, unfit_for, result, failure, note, place)
ORDER BY e.place;

-- name: holding
-- Of attempts whose report was refused: do they still hold their job, which was locked?
SELECT EXISTS (
    SELECT 1 FROM afterward.jobs j
    WHERE j.id = e.id AND j.attempt = e.attempt AND j.process IS NOT DISTINCT FROM e.process AND j.status = 'running'
) AS holds
FROM unnest($1::text[], $2::int[], $3::text[]) WITH ORDINALITY AS e (id, attempt, process, place) ORDER BY e.place;

-- name: wait_for
-- Return when nobody else's transaction has this job locked.
SELECT 1 FROM afterward.jobs WHERE id = $1 FOR UPDATE;

-- name: real_id
-- The job that an id leads to, and where it stands.
SELECT j.id, j.status, j.task, j.unique_key FROM afterward.jobs j WHERE j.id = coalesce((SELECT job FROM afterward.aliases WHERE id = $1), $1)
UNION ALL
SELECT f.id, f.status, f.task, f.unique_key FROM afterward.finished f WHERE f.id = coalesce((SELECT job FROM afterward.aliases WHERE id = $1), $1);

-- name: retry
-- failed | cancelled -> queued, with all its attempts before it; not while another unfinished job has its unique key.
-- An expiry that is still to come stays.
WITH moment AS MATERIALIZED (
    SELECT coalesce($1::float8, extract(epoch FROM statement_timestamp())::float8) AS now
), back AS (
    INSERT INTO afterward.jobs (
        seq, run_at, created_at, started_at, expires_at, timeout, priority, attempt, max_attempts, due, status, id, task,
        queue, unique_key, note, failure, context, arguments, signature
    ) OVERRIDING SYSTEM VALUE
    SELECT seq, now, created_at, started_at, CASE WHEN expires_at > now THEN expires_at END, timeout, priority, attempt, max_attempts,
        true, 'queued', id, task, queue, unique_key, 'retried', failure, context, arguments, signature
    FROM afterward.finished, moment WHERE id = $2 AND status IN ('failed', 'cancelled') FOR UPDATE OF finished
    ON CONFLICT DO NOTHING RETURNING id
)
DELETE FROM afterward.finished WHERE id = $2 AND EXISTS (SELECT 1 FROM back) RETURNING id;

-- name: prune
-- The oldest of those that ended with this status up to a time; all that is theirs goes with them. Fewer, where those
-- before have said so much ($5) together: more is left to do then.
WITH old AS MATERIALIZED (
    SELECT f.ctid AS address, f.id, (SELECT s.last - s.gone FROM afterward.streams s WHERE s.job = f.id) AS events
    FROM afterward.finished f
    WHERE f.status = $2 AND f.finished_at <= coalesce($1::float8, extract(epoch FROM statement_timestamp())::float8) - $3::float8
    ORDER BY f.finished_at LIMIT $4 FOR UPDATE SKIP LOCKED
), summed AS MATERIALIZED (
    SELECT address, id, coalesce(sum(events) OVER (ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING), 0) >= $5::bigint AS is_left FROM old
), attempts_gone AS (
    DELETE FROM afterward.attempts WHERE job = ANY (ARRAY(SELECT id FROM summed WHERE NOT is_left))
), aliases_gone AS (
    DELETE FROM afterward.aliases WHERE job = ANY (ARRAY(SELECT id FROM summed WHERE NOT is_left))
), origins_gone AS (
    DELETE FROM afterward.origins WHERE job = ANY (ARRAY(SELECT id FROM summed WHERE NOT is_left))
), streams_gone AS (
    DELETE FROM afterward.streams WHERE job = ANY (ARRAY(SELECT id FROM summed WHERE NOT is_left)) RETURNING id
), events_gone AS (
    DELETE FROM afterward.events WHERE stream = ANY (ARRAY(SELECT id FROM streams_gone))
), files_left AS (
    UPDATE afterward.files SET job = NULL WHERE job = ANY (ARRAY(SELECT id FROM summed WHERE NOT is_left))
), gone AS (
    DELETE FROM afterward.finished f USING summed WHERE f.ctid = summed.address AND NOT summed.is_left RETURNING f.id
)
SELECT (SELECT count(*) FROM gone) AS pruned, EXISTS (SELECT 1 FROM summed WHERE is_left) AS is_cut;

-- name: forget_left
-- What the version before has left of jobs that it has forgotten, at most so much: it is older than all that there are.
-- What is stored of a job is stored with it, and so, where it is seen, its job is.
WITH oldest AS MATERIALIZED (
    SELECT coalesce(least((SELECT min(id) FROM afterward.jobs), (SELECT min(id) FROM afterward.finished)), chr(1114111)) COLLATE "C" AS id
), origins_gone AS (
    DELETE FROM afterward.origins WHERE ctid = ANY (ARRAY(
        SELECT o.ctid FROM afterward.origins o WHERE o.job < (SELECT id FROM oldest) ORDER BY o.job LIMIT $1 FOR UPDATE SKIP LOCKED
    )) RETURNING 1
), streams_gone AS (
    DELETE FROM afterward.streams WHERE ctid = ANY (ARRAY(
        SELECT s.ctid FROM afterward.streams s WHERE s.job < (SELECT id FROM oldest) ORDER BY s.job LIMIT least($1, 2)
        FOR UPDATE SKIP LOCKED
    )) RETURNING id
), events_gone AS (
    DELETE FROM afterward.events WHERE stream = ANY (ARRAY(SELECT id FROM streams_gone))
)
SELECT (SELECT count(*) FROM origins_gone) + (SELECT count(*) FROM streams_gone);

-- name: untidy
-- Is there anything to do away with: what has expired, what ended long ago (by status and age), files that nobody wants,
-- keys of requests that are older than $4 seconds?
WITH RECURSIVE moment AS MATERIALIZED (
    SELECT coalesce($1::float8, extract(epoch FROM statement_timestamp())::float8) AS now
), owner (process) AS (
    SELECT min(process) FROM afterward.files WHERE job IS NULL
    UNION ALL
    SELECT (SELECT min(f.process) FROM afterward.files f WHERE f.job IS NULL AND f.process > owner.process)
    FROM owner WHERE owner.process IS NOT NULL
)
SELECT
    EXISTS (
        SELECT 1 FROM afterward.jobs j WHERE j.status = 'queued' AND j.process IS NULL
            AND j.expires_at <= coalesce($1::float8, extract(epoch FROM statement_timestamp())::float8)
    ) AS has_expired,
    EXISTS (
        SELECT 1 FROM unnest($2::text[], $3::float8[]) AS old (status, age), moment
        WHERE (SELECT min(f.finished_at) FROM afterward.finished f WHERE f.status = old.status) <= now - old.age
    ) AS has_old,
    EXISTS (
        SELECT 1 FROM owner WHERE owner.process IS NOT NULL
            AND NOT EXISTS (SELECT 1 FROM afterward.processes p WHERE p.id = owner.process)
    ) AS has_loose,
    (SELECT min(r.at) FROM afterward.reservations r) <= (SELECT now FROM moment) - $4::float8 AS has_reserved;

-- name: forget_reservations
-- Some that were completed long ago; or that nobody has completed, and nobody is going to.
DELETE FROM afterward.reservations WHERE ctid = ANY (ARRAY(
    SELECT r.ctid FROM afterward.reservations r
    WHERE r.at <= coalesce($1::float8, extract(epoch FROM statement_timestamp())::float8) - $2::float8
        AND (r.answer IS NOT NULL OR NOT EXISTS (SELECT 1 FROM afterward.processes p WHERE p.id = r.process))
    ORDER BY r.at LIMIT $3 FOR UPDATE SKIP LOCKED
)) RETURNING id;

-- name: prunable
SELECT count(*) FROM afterward.finished
WHERE status = $2 AND finished_at <= coalesce($1::float8, extract(epoch FROM statement_timestamp())::float8) - $3::float8;

-- name: begin_file
-- A file in the name of a process that lives; what was stored of it before counts no more.
INSERT INTO afterward.files (id, process) SELECT $1, id FROM afterward.processes WHERE id = $2
ON CONFLICT (id) DO UPDATE SET process = excluded.process, chunks = NULL WHERE files.job IS NULL;

-- name: put_chunk
-- Only while its process lives: from its death on, what is there of the file may be freed.
INSERT INTO afterward.chunks (file, number, data)
SELECT f.id, $2, $3 FROM afterward.files f JOIN afterward.processes p ON p.id = f.process
WHERE f.id = $1 AND f.process IS NOT DISTINCT FROM $4 AND coalesce(f.job, '') = ''
ON CONFLICT (file, number) DO UPDATE SET data = excluded.data RETURNING file;

-- name: end_file
UPDATE afterward.files SET chunks = $2 WHERE id = $1;

-- name: whole_files
-- Which of these are whole, and no job's, or already the one's that wants them ($2).
SELECT id FROM afterward.files WHERE id = ANY ($1::text[]) AND (job IS NULL OR job = $2) AND chunks IS NOT NULL FOR UPDATE;

-- name: link_files
-- From here on they are a job's.
UPDATE afterward.files SET job = $2, process = '' WHERE id = ANY ($1::text[]);

-- name: unlink_files
-- Their job has succeeded.
UPDATE afterward.files SET job = NULL WHERE id = ANY ($1::text[]) AND job = $2;

-- name: unwanted_file
-- One that is neither a job's nor a living process's; a walk over the few distinct owners, not over the files.
WITH RECURSIVE owner (process) AS (
    SELECT min(process) FROM afterward.files WHERE job IS NULL
    UNION ALL
    SELECT (SELECT min(f.process) FROM afterward.files f WHERE f.job IS NULL AND f.process > owner.process)
    FROM owner WHERE owner.process IS NOT NULL
)
SELECT found.id FROM owner CROSS JOIN LATERAL (
    SELECT f.id FROM afterward.files f WHERE f.job IS NULL AND f.process = owner.process LIMIT 1
) found
WHERE NOT EXISTS (SELECT 1 FROM afterward.processes p WHERE p.id = owner.process) LIMIT 1;

-- name: open_up_file
-- It is not whole any more, unless it has become a job's.
UPDATE afterward.files SET chunks = NULL WHERE id = $1 AND coalesce(job, '') = '' RETURNING id;

-- name: free_chunks
DELETE FROM afterward.chunks WHERE file = $1 AND number = ANY (ARRAY(
    SELECT number FROM afterward.chunks WHERE file = $1 ORDER BY number LIMIT $2
)) RETURNING file;

-- name: free_file
DELETE FROM afterward.files WHERE id = $1;

-- name: get_chunk
SELECT c.data, c.number + 1 = f.chunks AS is_last FROM afterward.files f JOIN afterward.chunks c ON c.file = f.id AND c.number = $2
WHERE f.id = $1 AND f.chunks IS NOT NULL;

-- name: get
-- Jobs by the ids that lead to them, with their attempts.
SELECT asked.id AS asked, j.seq, j.id, j.task, j.queue, j.priority, j.status, j.attempt, j.failures, j.deaths, j.arguments, j.result,
    j.failure, j.note, j.unique_key, j.process, j.created_at, coalesce(h.run_at, j.run_at) AS run_at, j.started_at, j.finished_at, j.unfit_for, j.max_attempts,
    j.timeout, j.expires_at, j.signature, o.owner, o.origin, j.cancel_asked_at, s.progress, CASE WHEN j.status IN ('queued', 'running') THEN h.handed_at END AS handed_at, (
    SELECT json_agg(json_build_array(a.number, a.outcome, a.started_at, a.ended_at, a.failure, a.note, a.signature) ORDER BY a.number)
    FROM afterward.attempts a WHERE a.job = j.id
) AS attempts
FROM unnest($1::text[]) AS asked (id) CROSS JOIN LATERAL (
    SELECT 0 AS seq, id, task, queue, priority, status, attempt, failures, deaths, arguments, NULL AS result, failure, note,
        unique_key, process, created_at, run_at, started_at, NULL::float8 AS finished_at, unfit_for, max_attempts, timeout, expires_at,
        signature, cancel_asked_at
    FROM afterward.jobs WHERE id = coalesce((SELECT job FROM afterward.aliases a WHERE a.id = asked.id), asked.id)
    UNION ALL
    SELECT 0, id, task, queue, priority, status, attempt, failures, deaths, arguments, result, failure, note,
        unique_key, NULL, created_at, run_at, started_at, finished_at, unfit_for, max_attempts, timeout, expires_at, signature,
        cancel_asked_at
    FROM afterward.finished WHERE id = coalesce((SELECT job FROM afterward.aliases a WHERE a.id = asked.id), asked.id)
) j
LEFT JOIN LATERAL (SELECT owner, origin FROM afterward.origins WHERE job = j.id OFFSET 0) o ON true
LEFT JOIN LATERAL (SELECT progress FROM afterward.streams WHERE job = j.id OFFSET 0) s ON true
LEFT JOIN LATERAL (
    SELECT k.run_at, k.handed_at FROM afterward.handed k
    WHERE k.job = j.id AND k.attempt = j.attempt AND j.run_at BETWEEN 253402214400.5 AND 253402214400.75 OFFSET 0
) h ON true;

-- name: list
-- Newest first. A null filter lets everything pass. What was stored before a time ($5) passes too: whoever reads stops
-- there. Where the job that it is to begin after ($4) is gone, it begins with the one whose id is next below.
SELECT j.seq, j.id, j.task, j.queue, j.priority, j.status, j.attempt, j.failures, j.deaths, j.arguments, j.result,
    j.failure, j.note, j.unique_key, j.process, j.created_at, coalesce(h.run_at, j.run_at) AS run_at, j.started_at, j.finished_at, j.unfit_for, j.max_attempts,
    j.timeout, j.expires_at, j.signature, o.owner, o.origin, j.cancel_asked_at, s.progress, CASE WHEN j.status IN ('queued', 'running') THEN h.handed_at END AS handed_at
FROM (
    SELECT * FROM (
        (
            SELECT 0 AS seq, id, task, queue, priority, status, attempt, failures, deaths, arguments, NULL AS result, failure, note,
                unique_key, process, created_at, run_at, started_at, NULL::float8 AS finished_at, unfit_for, max_attempts, timeout,
                expires_at, signature, cancel_asked_at
            FROM afterward.jobs
            WHERE (created_at < $5 OR (
                    ($1::text[] IS NULL OR status = ANY ($1)) AND ($2::text IS NULL OR task = $2)
                    AND ($3::text IS NULL OR queue = $3) AND ($7::text IS NULL OR unique_key = $7)
                ))
                AND ($4::text IS NULL OR id < coalesce((SELECT job FROM afterward.aliases WHERE id = $4), $4))
            ORDER BY id DESC LIMIT $6
        )
        UNION ALL
        (
            SELECT 0, id, task, queue, priority, status, attempt, failures, deaths, arguments, result, failure, note,
                unique_key, NULL, created_at, run_at, started_at, finished_at, unfit_for, max_attempts, timeout, expires_at, signature,
                cancel_asked_at
            FROM afterward.finished
            WHERE (created_at < $5 OR (
                    ($1::text[] IS NULL OR status = ANY ($1)) AND ($2::text IS NULL OR task = $2)
                    AND ($3::text IS NULL OR queue = $3) AND ($7::text IS NULL OR unique_key = $7)
                ))
                AND ($4::text IS NULL OR id < coalesce((SELECT job FROM afterward.aliases WHERE id = $4), $4))
            ORDER BY id DESC LIMIT $6
        )
    ) AS both_tables ORDER BY id DESC LIMIT $6
) AS j
LEFT JOIN LATERAL (SELECT owner, origin FROM afterward.origins WHERE job = j.id OFFSET 0) o ON true
LEFT JOIN LATERAL (SELECT progress FROM afterward.streams WHERE job = j.id OFFSET 0) s ON true
LEFT JOIN LATERAL (
    SELECT k.run_at, k.handed_at FROM afterward.handed k
    WHERE k.job = j.id AND k.attempt = j.attempt AND j.run_at BETWEEN 253402214400.5 AND 253402214400.75 OFFSET 0
) h ON true
ORDER BY j.id DESC;

-- name: few
-- The ids of what may have one of these statuses ($1): up to so many ($2) of what has ended, of what runs, of what waits.
(SELECT id FROM afterward.finished WHERE status = ANY ($1::text[]) LIMIT $2)
UNION ALL
(SELECT id FROM afterward.jobs WHERE process IS NOT NULL AND 'running' = ANY ($1) AND 'queued' <> ALL ($1) LIMIT $2)
UNION ALL
(SELECT id FROM afterward.jobs WHERE 'queued' = ANY ($1) LIMIT $2);

-- name: list_owned
-- The ids of the jobs of one owner ($8), newest first, as above; and of those that fail with a signature ($9), if one is said:
-- for good, or to be tried again.
-- Only the first $10 are searched for a text ($11; $12: as JSON has it), whatever the case of ASCII letters.
SELECT id FROM (
    SELECT j.* FROM afterward.origins o CROSS JOIN LATERAL (
        SELECT id, created_at, status, task, queue, unique_key, arguments, failure, signature, failed_at IS NOT NULL AS fails
        FROM afterward.jobs WHERE id = o.job
        UNION ALL
        SELECT id, created_at, status, task, queue, unique_key, arguments, failure, signature, status = 'failed'
        FROM afterward.finished WHERE id = o.job
    ) j
    WHERE o.owner = $8 AND ($4::text IS NULL OR o.job < coalesce((SELECT job FROM afterward.aliases WHERE id = $4), $4))
        AND (j.created_at < $5::float8 OR (
            ($1::text[] IS NULL OR j.status = ANY ($1)) AND ($2::text IS NULL OR j.task = $2)
            AND ($3::text IS NULL OR j.queue = $3) AND ($7::text IS NULL OR j.unique_key = $7)
            AND ($9::text IS NULL OR (j.fails AND j.signature = $9))
        ))
    ORDER BY o.job DESC LIMIT $10
) AS searched
WHERE $11::text IS NULL OR created_at < $5 OR strpos(lower(arguments COLLATE "C"), $11) > 0
    OR strpos(lower(split_part(split_part(substr(failure, 11), '", "traceback": "', 1), '", "message": "', 1) COLLATE "C"), $12::text) > 0
    OR strpos(lower(split_part(split_part(failure, '", "traceback": "', 1), '", "message": "', 2) COLLATE "C"), $12) > 0
ORDER BY id DESC LIMIT $6;

-- name: list_failed
-- The same of all owners' jobs that fail with this signature.
SELECT id FROM (
    SELECT * FROM (
        (
            SELECT j.id, j.created_at, j.arguments, j.failure FROM afterward.jobs j
            WHERE j.failed_at IS NOT NULL AND j.signature = $9 AND $8::text IS NULL
                AND ($4::text IS NULL OR j.id < coalesce((SELECT job FROM afterward.aliases WHERE id = $4), $4))
                AND (j.created_at < $5::float8 OR (
                    ($1::text[] IS NULL OR j.status = ANY ($1)) AND ($2::text IS NULL OR j.task = $2)
                    AND ($3::text IS NULL OR j.queue = $3) AND ($7::text IS NULL OR j.unique_key = $7)
                ))
            ORDER BY j.id DESC LIMIT $10
        )
        UNION ALL
        (
            SELECT f.id, f.created_at, f.arguments, f.failure FROM afterward.finished f
            WHERE f.status = 'failed' AND f.signature = $9 AND $8::text IS NULL
                AND ($4::text IS NULL OR f.id < coalesce((SELECT job FROM afterward.aliases WHERE id = $4), $4))
                AND (f.created_at < $5::float8 OR (
                    ($1::text[] IS NULL OR f.status = ANY ($1)) AND ($2::text IS NULL OR f.task = $2)
                    AND ($3::text IS NULL OR f.queue = $3) AND ($7::text IS NULL OR f.unique_key = $7)
                ))
            ORDER BY f.id DESC LIMIT $10
        )
    ) AS both_tables ORDER BY id DESC LIMIT $10
) AS searched
WHERE $11::text IS NULL OR created_at < $5 OR strpos(lower(arguments COLLATE "C"), $11) > 0
    OR strpos(lower(split_part(split_part(substr(failure, 11), '", "traceback": "', 1), '", "message": "', 1) COLLATE "C"), $12::text) > 0
    OR strpos(lower(split_part(split_part(failure, '", "traceback": "', 1), '", "message": "', 2) COLLATE "C"), $12) > 0
ORDER BY id DESC LIMIT $6;

-- name: list_text
-- The same of all jobs.
SELECT id FROM (
    SELECT * FROM (
        (
            SELECT id, created_at, arguments, failure FROM afterward.jobs
            WHERE $8::text IS NULL AND $9::text IS NULL
                AND (created_at < $5::float8 OR (
                    ($1::text[] IS NULL OR status = ANY ($1)) AND ($2::text IS NULL OR task = $2)
                    AND ($3::text IS NULL OR queue = $3) AND ($7::text IS NULL OR unique_key = $7)
                ))
                AND ($4::text IS NULL OR id < coalesce((SELECT job FROM afterward.aliases WHERE id = $4), $4))
            ORDER BY id DESC LIMIT $10
        )
        UNION ALL
        (
            SELECT id, created_at, arguments, failure FROM afterward.finished
            WHERE (created_at < $5 OR (
                    ($1::text[] IS NULL OR status = ANY ($1)) AND ($2::text IS NULL OR task = $2)
                    AND ($3::text IS NULL OR queue = $3) AND ($7::text IS NULL OR unique_key = $7)
                ))
                AND ($4::text IS NULL OR id < coalesce((SELECT job FROM afterward.aliases WHERE id = $4), $4))
            ORDER BY id DESC LIMIT $10
        )
    ) AS both_tables ORDER BY id DESC LIMIT $10
) AS searched
WHERE $11::text IS NULL OR created_at < $5 OR strpos(lower(arguments COLLATE "C"), $11) > 0
    OR strpos(lower(split_part(split_part(substr(failure, 11), '", "traceback": "', 1), '", "message": "', 1) COLLATE "C"), $12::text) > 0
    OR strpos(lower(split_part(split_part(failure, '", "traceback": "', 1), '", "message": "', 2) COLLATE "C"), $12) > 0
ORDER BY id DESC LIMIT $6;

-- name: changed
-- The ids of what is held or run, and of what has ended since a time.
(SELECT id FROM afterward.jobs WHERE process IS NOT NULL LIMIT $2)
UNION ALL
(SELECT id FROM afterward.finished WHERE status = 'succeeded' AND finished_at >= $1 ORDER BY finished_at DESC LIMIT $2)
UNION ALL
(SELECT id FROM afterward.finished WHERE status = 'failed' AND finished_at >= $1 ORDER BY finished_at DESC LIMIT $2)
UNION ALL
(SELECT id FROM afterward.finished WHERE status = 'cancelled' AND finished_at >= $1 ORDER BY finished_at DESC LIMIT $2);

-- name: find
-- Ids between two texts, of jobs and of calls that lead to one.
SELECT id FROM (
    (SELECT id FROM afterward.jobs WHERE id >= $1 AND id < $2 ORDER BY id LIMIT $3)
    UNION ALL
    (SELECT id FROM afterward.finished WHERE id >= $1 AND id < $2 ORDER BY id LIMIT $3)
    UNION ALL
    (SELECT id FROM afterward.aliases WHERE id >= $1 AND id < $2 ORDER BY id LIMIT $3)
) AS found ORDER BY id LIMIT $3;

-- name: lane_counts
-- How many jobs of each lane are ready, up to so many ($1), and since when the first: a walk from lane to lane, and in
-- each from one priority to the next.
WITH RECURSIVE lane (queue, task, unfit_for, priority) AS (
    (
        SELECT queue, task, unfit_for, priority FROM afterward.jobs WHERE status = 'queued' AND due AND process IS NULL
        ORDER BY queue, task, unfit_for, priority DESC LIMIT 1
    )
    UNION ALL
    SELECT next.queue, next.task, next.unfit_for, next.priority FROM lane CROSS JOIN LATERAL (
        (
            SELECT queue, task, unfit_for, priority FROM afterward.jobs j
            WHERE status = 'queued' AND due AND process IS NULL AND j.queue = lane.queue AND j.task = lane.task
                AND j.unfit_for = lane.unfit_for AND j.priority < lane.priority
            ORDER BY priority DESC LIMIT 1
        )
        UNION ALL
        (
            SELECT queue, task, unfit_for, priority FROM afterward.jobs j
            WHERE status = 'queued' AND due AND process IS NULL
                AND (j.queue, j.task, j.unfit_for) > (lane.queue, lane.task, lane.unfit_for)
            ORDER BY queue, task, unfit_for, priority DESC LIMIT 1
        )
        LIMIT 1
    ) next
)
SELECT lane.queue, lane.task, lane.unfit_for, sum(counted.jobs)::bigint AS jobs, min(counted.since) AS since
FROM lane CROSS JOIN LATERAL (
    SELECT count(*) AS jobs, min(run_at) AS since FROM (
        SELECT j.run_at FROM afterward.jobs j
        WHERE j.status = 'queued' AND j.due AND j.process IS NULL AND j.queue = lane.queue AND j.task = lane.task
            AND j.unfit_for = lane.unfit_for AND j.priority = lane.priority
        ORDER BY j.run_at LIMIT $1
    ) ready
) counted
GROUP BY lane.queue, lane.task, lane.unfit_for ORDER BY lane.queue, lane.task, lane.unfit_for;

-- name: ahead
-- How many jobs of some tasks ($2) and queues ($3) are ready, and stand before one ($1), up to so many ($4); those that
-- have come due ($5: now) and were not made ready yet included.
WITH RECURSIVE place AS MATERIALIZED (
    SELECT priority, run_at, seq FROM afterward.jobs
    WHERE id = coalesce((SELECT job FROM afterward.aliases WHERE id = $1), $1) AND status = 'queued'
        AND run_at NOT BETWEEN 253402214400.5 AND 253402214400.75
), lane (queue, task, unfit_for) AS (
    (
        SELECT queue, task, unfit_for FROM afterward.jobs WHERE status = 'queued' AND due AND process IS NULL
        ORDER BY queue, task, unfit_for LIMIT 1
    )
    UNION ALL
    SELECT next.queue, next.task, next.unfit_for FROM lane CROSS JOIN LATERAL (
        SELECT j.queue, j.task, j.unfit_for FROM afterward.jobs j
        WHERE j.status = 'queued' AND j.due AND j.process IS NULL
            AND (j.queue, j.task, j.unfit_for) > (lane.queue, lane.task, lane.unfit_for)
        ORDER BY j.queue, j.task, j.unfit_for LIMIT 1
    ) next
), ready AS (
    SELECT found.jobs FROM lane CROSS JOIN place CROSS JOIN LATERAL (
        SELECT count(*) AS jobs FROM (
            (
                SELECT 1 FROM afterward.jobs j
                WHERE j.status = 'queued' AND j.due AND j.process IS NULL AND j.queue = lane.queue AND j.task = lane.task
                    AND j.unfit_for = '' AND j.priority > place.priority
                LIMIT $4
            )
            UNION ALL
            (
                SELECT 1 FROM afterward.jobs j
                WHERE j.status = 'queued' AND j.due AND j.process IS NULL AND j.queue = lane.queue AND j.task = lane.task
                    AND j.unfit_for = '' AND j.priority = place.priority AND (j.run_at, j.seq) < (place.run_at, place.seq)
                LIMIT $4
            )
        ) before
    ) found
    WHERE lane.unfit_for = '' AND lane.task = ANY ($2::text[]) AND lane.queue = ANY ($3::text[])
), overdue AS (
    SELECT found.jobs FROM unnest($3::text[]) AS wanted (queue) CROSS JOIN place CROSS JOIN LATERAL (
        SELECT count(*) AS jobs FROM (
            SELECT * FROM afterward.jobs j
            WHERE j.status = 'queued' AND NOT j.due AND j.process IS NULL AND j.queue = wanted.queue
                AND j.run_at <= coalesce($5::float8, extract(epoch FROM statement_timestamp())::float8)
            LIMIT $4
        ) late
        WHERE late.task = ANY ($2::text[]) AND late.unfit_for = ''
            AND (late.priority > place.priority
                OR (late.priority = place.priority AND (late.run_at, late.seq) < (place.run_at, place.seq)))
    ) found
)
SELECT least($4, coalesce(sum(jobs), 0))::bigint FROM (SELECT jobs FROM ready UNION ALL SELECT jobs FROM overdue) counted;

-- name: scheduled_counts
-- By queue: what has come due and was not made ready yet, since when, what waits for its time, and what is in other hands; up
-- to so many ($2).
WITH RECURSIVE moment AS MATERIALIZED (
    SELECT coalesce($1::float8, extract(epoch FROM statement_timestamp())::float8) AS now
), lane (queue) AS (
    (
        SELECT queue FROM afterward.jobs WHERE status = 'queued' AND NOT due AND process IS NULL ORDER BY queue LIMIT 1
    )
    UNION ALL
    SELECT next.queue FROM lane CROSS JOIN LATERAL (
        SELECT j.queue FROM afterward.jobs j
        WHERE j.status = 'queued' AND NOT j.due AND j.process IS NULL AND j.queue > lane.queue ORDER BY j.queue LIMIT 1
    ) next
)
SELECT lane.queue, overdue.jobs AS overdue, overdue.since, later.jobs AS later, handed.jobs AS handed
FROM moment CROSS JOIN lane CROSS JOIN LATERAL (
    SELECT count(*) AS jobs, min(run_at) AS since FROM (
        SELECT j.run_at FROM afterward.jobs j
        WHERE j.status = 'queued' AND NOT j.due AND j.process IS NULL AND j.queue = lane.queue AND j.run_at <= now
        ORDER BY j.run_at LIMIT $2
    ) found
) overdue CROSS JOIN LATERAL (
    SELECT count(*) AS jobs FROM (
        (
            SELECT 1 FROM afterward.jobs j
            WHERE j.status = 'queued' AND NOT j.due AND j.process IS NULL AND j.queue = lane.queue AND j.run_at > now
                AND j.run_at < 253402214400.5
            ORDER BY j.run_at LIMIT $2
        )
        UNION ALL
        (
            SELECT 1 FROM afterward.jobs j
            WHERE j.status = 'queued' AND NOT j.due AND j.process IS NULL AND j.queue = lane.queue AND j.run_at > 253402214400.75
            ORDER BY j.run_at LIMIT $2
        )
        LIMIT $2
    ) found
) later CROSS JOIN LATERAL (
    SELECT count(*) AS jobs FROM (
        SELECT 1 FROM afterward.jobs j
        WHERE j.status = 'queued' AND NOT j.due AND j.process IS NULL AND j.queue = lane.queue AND j.run_at BETWEEN 253402214400.5 AND 253402214400.75
        ORDER BY j.run_at LIMIT $2
    ) found
) handed ORDER BY lane.queue;

-- name: taken_counts
-- What is held or run, by queue.
SELECT queue, status, count(*) AS jobs FROM afterward.jobs WHERE process IS NOT NULL GROUP BY queue, status;

-- name: living
-- Processes that have joined. Who has waited for jobs runs them.
SELECT id, pid, host, beat, waits FROM afterward.processes ORDER BY id;

-- name: now
SELECT coalesce($1::float8, extract(epoch FROM statement_timestamp())::float8);

-- name: notify
-- A hint in a transaction of its own, which waits for no disk.
SELECT set_config('synchronous_commit', 'off', true), pg_notify($1, '');

-- name: in_progress
-- Which transactions are neither committed nor rolled back.
SELECT id FROM unnest($1::text[]) AS asked (id) WHERE pg_xact_status(id::xid8) = 'in progress';

-- name: owners
-- Of jobs that have one.
SELECT job, owner FROM afterward.origins WHERE job = ANY ($1::text[]) AND owner IS NOT NULL;

-- name: report
-- What attempts say, appended to the logs of their jobs: of each job one attempt. $2: by those that hold their jobs; else
-- they have held them, in this transaction. What the log has of it already is passed over; and what is locked. Of each
-- job some $8 events are kept, and up to $9 more until they are removed together.
WITH mine AS MATERIALIZED (
    SELECT r.id, r.attempt, r.first, r.events, r.progress
    FROM unnest($3::text[], $4::int[], $5::text[], $6::bigint[], $7::bigint[], $10::text[])
        AS r (id, attempt, process, first, events, progress)
    CROSS JOIN LATERAL (
        SELECT 1 FROM (
            SELECT 1 FROM afterward.jobs j
            WHERE $2::bool AND j.id = r.id AND j.attempt = r.attempt AND j.process IS NOT DISTINCT FROM r.process AND j.status = 'running'
            FOR NO KEY UPDATE SKIP LOCKED
        ) fenced
        UNION ALL
        SELECT 1 WHERE NOT $2
    ) held
), stream AS (
    INSERT INTO afterward.streams AS s (job, attempt, said, added, last, gone, progress)
    SELECT id, attempt, first + events - 1, events, events, greatest(0, events - $8), progress FROM mine
    ON CONFLICT (job) DO UPDATE SET
        attempt = excluded.attempt,
        said = greatest(excluded.said, CASE WHEN s.attempt = excluded.attempt THEN s.said ELSE 0 END),
        added = least(excluded.added, greatest(0, excluded.said - CASE WHEN s.attempt = excluded.attempt THEN s.said ELSE 0 END)),
        last = s.last + least(excluded.added, greatest(0, excluded.said - CASE WHEN s.attempt = excluded.attempt THEN s.said ELSE 0 END)),
        gone = CASE WHEN s.last + excluded.added - $8 - s.gone > $9 THEN greatest(s.gone, s.last - $8 + least(
            excluded.added, greatest(0, excluded.said - CASE WHEN s.attempt = excluded.attempt THEN s.said ELSE 0 END)
        )) ELSE s.gone END,
        progress = CASE WHEN excluded.said > s.said OR s.attempt <> excluded.attempt THEN coalesce(excluded.progress, s.progress)
            ELSE s.progress END
    RETURNING s.id, s.job, s.last, s.gone, s.said, s.added
), place AS MATERIALIZED (
    SELECT jsonb_object_agg(job, jsonb_build_array(id, last - said, greatest(said - added, gone - last + said))) AS of_job FROM stream
), written AS (
    INSERT INTO afterward.events (stream, number, at, attempt, kind, data)
    SELECT (of_job -> e.job ->> 0)::bigint, (of_job -> e.job ->> 1)::bigint + e.place,
        coalesce($1::float8, extract(epoch FROM statement_timestamp())::float8) - e.age, e.attempt, e.kind, e.data
    FROM place CROSS JOIN unnest($11::text[], $12::int[], $13::bigint[], $14::text[], $15::text[], $16::float8[])
        AS e (job, attempt, place, kind, data, age)
    WHERE e.place > (of_job -> e.job ->> 2)::bigint
), removed AS (
    DELETE FROM afterward.events WHERE ctid = ANY (ARRAY(
        SELECT old.address FROM stream CROSS JOIN LATERAL (
            SELECT e.ctid AS address FROM afterward.events e
            WHERE e.stream = stream.id AND e.number <= stream.gone AND e.number >= stream.gone - stream.added - $9 OFFSET 0
        ) old
        WHERE stream.gone > 0 AND stream.gone = stream.last - $8
    ))
)
SELECT id FROM mine;

-- name: events
-- Of jobs, what they have said after a number: at most $3 events of each, of those that are kept ($4); and how they stand.
SELECT asked.place, j.id, j.status, j.attempt, coalesce(s.last, 0) AS last, e.number, e.attempt AS said_by, e.kind, e.data, e.at
FROM unnest($1::text[], $2::bigint[]) WITH ORDINALITY AS asked (id, after, place) CROSS JOIN LATERAL (
    SELECT id, status, attempt FROM afterward.jobs
    WHERE id = coalesce((SELECT job FROM afterward.aliases a WHERE a.id = asked.id), asked.id)
    UNION ALL
    SELECT id, status, attempt FROM afterward.finished
    WHERE id = coalesce((SELECT job FROM afterward.aliases a WHERE a.id = asked.id), asked.id)
) j
LEFT JOIN LATERAL (SELECT id, last FROM afterward.streams WHERE job = j.id OFFSET 0) s ON true
LEFT JOIN LATERAL (
    SELECT number, attempt, kind, data, at FROM afterward.events
    WHERE stream = s.id AND number > greatest(asked.after, s.last - $4::bigint) ORDER BY number LIMIT $3
) e ON true
ORDER BY asked.place, e.number;

-- name: failures
-- What failed for good, and what is tried again, by signature, and without one by task: a walk from signature to signature.
WITH RECURSIVE signed (signature) AS (
    SELECT least(
        (SELECT min(f.signature) FROM afterward.finished f WHERE f.status = 'failed'),
        (SELECT min(j.signature) FROM afterward.jobs j WHERE j.failed_at IS NOT NULL)
    )
    UNION ALL
    SELECT least(
        (SELECT min(f.signature) FROM afterward.finished f WHERE f.status = 'failed' AND f.signature > signed.signature),
        (SELECT min(j.signature) FROM afterward.jobs j WHERE j.failed_at IS NOT NULL AND j.signature > signed.signature)
    )
    FROM signed WHERE signed.signature IS NOT NULL
), latest AS MATERIALIZED (
    SELECT signed.signature, 'failed' AS status, found.* FROM signed CROSS JOIN LATERAL (
        SELECT of_task, sum(failed)::bigint AS failed, sum(retrying)::bigint AS retrying, min(first_at) AS first_at,
            max(last_at) AS last_at
        FROM (
            SELECT CASE WHEN f.signature = '' THEN f.task END AS of_task, count(*) AS failed, 0 AS retrying,
                min(f.finished_at) AS first_at, max(f.finished_at) AS last_at
            FROM afterward.finished f WHERE f.status = 'failed' AND f.signature = signed.signature
            GROUP BY CASE WHEN f.signature = '' THEN f.task END
            UNION ALL
            SELECT CASE WHEN j.signature = '' THEN j.task END, 0, count(*), min(j.failed_at), max(j.failed_at)
            FROM afterward.jobs j WHERE j.failed_at IS NOT NULL AND j.signature = signed.signature
            GROUP BY CASE WHEN j.signature = '' THEN j.task END
        ) of_both GROUP BY of_task
    ) found
    ORDER BY last_at DESC LIMIT $1
)
SELECT latest.signature, newest.task, newest.failure, latest.failed, latest.retrying, latest.first_at, latest.last_at, newest.id
FROM latest CROSS JOIN LATERAL (
    SELECT * FROM (
        (
            SELECT f.task, f.failure, f.id FROM afterward.finished f
            WHERE f.status = latest.status AND f.finished_at = latest.last_at
                AND f.signature IS NOT DISTINCT FROM latest.signature AND f.task = coalesce(latest.of_task, f.task)
            ORDER BY f.id DESC LIMIT 1
        )
        UNION ALL
        (
            SELECT j.task, j.failure, j.id FROM afterward.jobs j
            WHERE j.failed_at = latest.last_at AND j.failed_at IS NOT NULL AND j.signature = latest.signature
                AND j.task = coalesce(latest.of_task, j.task)
            ORDER BY j.id DESC LIMIT 1
        )
    ) of_both ORDER BY id DESC LIMIT 1
) newest
ORDER BY latest.last_at DESC, newest.id DESC;

-- name: history
-- What ended since a time, by spans of so many seconds and by queue: how many, and how long some $3 of each of those took
-- that succeeded or failed: to wait, and to run.
SELECT ended.queue, ended.span, ended.succeeded, ended.failed, ended.cancelled, took.waited, took.ran
FROM (
    SELECT f.queue, floor(f.finished_at / $2::float8) AS span,
        count(*) FILTER (WHERE f.status = 'succeeded') AS succeeded, count(*) FILTER (WHERE f.status = 'failed') AS failed,
        count(*) FILTER (WHERE f.status = 'cancelled') AS cancelled,
        array_agg(f.started_at - f.run_at) FILTER (WHERE f.status <> 'cancelled' AND f.started_at IS NOT NULL) AS waits,
        array_agg(f.finished_at - f.started_at) FILTER (WHERE f.status <> 'cancelled' AND f.started_at IS NOT NULL) AS runs
    FROM unnest(ARRAY['succeeded', 'failed', 'cancelled']) AS one (status) CROSS JOIN LATERAL (
        SELECT queue, status, run_at, started_at, finished_at FROM afterward.finished
        WHERE status = one.status AND finished_at >= $1::float8
    ) f
    GROUP BY f.queue, span
) ended CROSS JOIN LATERAL (
    SELECT percentile_cont(ARRAY[0.5, 0.95]) WITHIN GROUP (ORDER BY greatest(0, waited)) AS waited,
        percentile_cont(ARRAY[0.5, 0.95]) WITHIN GROUP (ORDER BY greatest(0, ran)) AS ran
    FROM unnest(ended.waits, ended.runs) WITH ORDINALITY AS took (waited, ran, place)
    WHERE took.place % greatest(1, cardinality(ended.waits) / $3::int) = 0
) took
ORDER BY ended.span, ended.queue;

-- name: describe
-- What a process that lives runs jobs of, and that it has served these tasks. What those said whose row is gone goes.
WITH alive AS MATERIALIZED (
    SELECT id FROM afterward.processes WHERE id = $2
), said AS (
    INSERT INTO afterward.served (process, served) SELECT id, $3::text FROM alive
    ON CONFLICT (process) DO UPDATE SET served = excluded.served
), seen AS (
    INSERT INTO afterward.tasks (task, version, seen_at)
    SELECT served.task, $5::text, coalesce($1::float8, extract(epoch FROM statement_timestamp())::float8)
    FROM alive, unnest($4::text[]) AS served (task) ORDER BY served.task
    ON CONFLICT (task) DO UPDATE SET version = excluded.version, seen_at = excluded.seen_at
), silent AS (
    DELETE FROM afterward.served s WHERE NOT EXISTS (SELECT 1 FROM afterward.processes p WHERE p.id = s.process)
)
SELECT EXISTS (SELECT 1 FROM alive);

-- name: processes
-- Those that have a row, with what they said they serve, and what they run.
SELECT p.id, p.pid, p.host, p.joined_at, (SELECT s.served FROM afterward.served s WHERE s.process = p.id) AS served,
    ARRAY(SELECT j.id FROM afterward.jobs j WHERE j.process = p.id AND j.status = 'running' ORDER BY j.id) AS running
FROM afterward.processes p ORDER BY p.joined_at DESC, p.id DESC;

-- name: tasks_seen
SELECT task, version, seen_at FROM afterward.tasks ORDER BY task;

-- name: pause
-- Nothing is claimed from this queue.
INSERT INTO afterward.pauses (queue, since, by)
VALUES ($2, coalesce($1::float8, extract(epoch FROM statement_timestamp())::float8), $3) ON CONFLICT DO NOTHING RETURNING queue;

-- name: resume
DELETE FROM afterward.pauses WHERE queue = $1 RETURNING queue;

-- name: paused
SELECT queue, since, by FROM afterward.pauses ORDER BY queue;

-- name: reservation
-- Who has a key, if anybody; and whether he who asks is there at all. Waits for nobody.
SELECT EXISTS (SELECT 1 FROM afterward.processes p WHERE p.id = $3) AS is_here, r.id, r.fingerprint, r.answer,
    EXISTS (SELECT 1 FROM afterward.processes p WHERE p.id = r.process) AS is_held
FROM (SELECT 1) AS one LEFT JOIN LATERAL (
    SELECT id, fingerprint, answer, process FROM afterward.reservations WHERE scope = $1 AND key = $2
) r ON true;

-- name: reserve
-- In the name of a process that lives; in the place of one that does not, and has not completed it.
INSERT INTO afterward.reservations AS r (id, scope, key, fingerprint, process, at)
SELECT $2, $3, $4, $5, p.id, coalesce($1::float8, extract(epoch FROM statement_timestamp())::float8)
FROM afterward.processes p WHERE p.id = $6
ON CONFLICT (scope, key) DO UPDATE SET
    id = excluded.id, fingerprint = excluded.fingerprint, process = excluded.process, at = excluded.at
WHERE r.answer IS NULL AND NOT EXISTS (SELECT 1 FROM afterward.processes p WHERE p.id = r.process)
RETURNING r.id;

-- name: hold_reservations
-- Those of these that are there, kept as they are until the end of the transaction.
SELECT id FROM afterward.reservations WHERE id = ANY ($1::text[]) ORDER BY id FOR UPDATE;

-- name: complete
-- The jobs are stored that they were made for.
UPDATE afterward.reservations r SET answer = told.answer, at = coalesce($1::float8, extract(epoch FROM statement_timestamp())::float8)
FROM unnest($2::text[], $3::text[]) AS told (id, answer) WHERE r.id = ANY (ARRAY[told.id]);

-- name: amend
UPDATE afterward.reservations SET answer = $2 WHERE id = $1 AND answer IS NOT NULL RETURNING id;

-- name: give_back_reservations
-- Those that their process does not know of. What a transaction is about to complete is passed over.
DELETE FROM afterward.reservations WHERE ctid = ANY (ARRAY(
    SELECT ctid FROM afterward.reservations WHERE id = ANY ($2::text[]) AND process = $1 AND answer IS NULL
    FOR UPDATE SKIP LOCKED
));

-- name: drop_reservations
-- (Said so that it goes by their ids, and not by the index of those that are not completed.)
DELETE FROM afterward.reservations WHERE id = ANY ($1::text[]) AND coalesce(answer, '') = '';
