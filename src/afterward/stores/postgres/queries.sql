-- name: join
-- A process shows that it lives. A row that is there stays as it is.
INSERT INTO afterward.processes (id, pid, host, has_lock, joined_at)
VALUES ($2, $3, $4, $5, coalesce($1::float8, extract(epoch FROM statement_timestamp())::float8)) ON CONFLICT (id) DO NOTHING;

-- name: leave
-- running -> queued, or held -> queued: what is in the name of a process that leaves
WITH given AS (
    UPDATE afterward.jobs SET status = 'queued', process = NULL, token = NULL WHERE process = $1
)
DELETE FROM afterward.processes WHERE id = $1;

-- name: beat
-- One beat more; and what there is to see of the others, and ($3) of what is in this process's name. That was long where
-- some $4 entries of the index led to no job: they are dead, and may not be removed yet.
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
    (SELECT json_agg(f.id) FROM afterward.files f WHERE f.job IS NULL AND f.process = $1 AND $3::bool) AS files,
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
WHERE j.id = ANY (ARRAY[unknown.id]) AND j.attempt = unknown.attempt AND j.process IS NOT DISTINCT FROM $1 RETURNING j.id;

-- name: drop_files
-- No process is storing them any more.
UPDATE afterward.files SET process = '' WHERE id = ANY ($2::text[]) AND process = $1 AND job IS NULL;

-- name: bury
-- The fence of reaping: from here on nothing can be claimed or stored in these processes' names.
DELETE FROM afterward.processes p USING unnest($1::text[], $2::bigint[]) AS dead (id, beat)
WHERE p.id = dead.id AND (dead.beat IS NULL OR dead.beat = p.beat);

-- name: adopt
-- running -> queued (worker died); queued and held -> queued: a page of what belongs to processes without a row.
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
        SELECT j.ctid AS address, j.id, j.attempt, j.status, j.started_at FROM afterward.jobs j
        WHERE j.process = owner.process LIMIT $2 FOR UPDATE SKIP LOCKED
    ) found
    WHERE NOT EXISTS (SELECT 1 FROM afterward.processes p WHERE p.id = owner.process) LIMIT $2
), remembered AS (
    INSERT INTO afterward.attempts (job, number, outcome, started_at, ended_at, failure)
    SELECT id, attempt, 'died', started_at, now, $3 FROM orphan, moment WHERE status = 'running' ON CONFLICT DO NOTHING
), moved AS (
    UPDATE afterward.jobs j SET
        deaths = CASE WHEN j.status = 'running' THEN least(j.deaths + 1, greatest(j.deaths, $4::int)) ELSE j.deaths END,
        due = CASE WHEN j.status = 'running' AND j.deaths + 1 >= $4::int THEN false ELSE j.due END,
        run_at = CASE WHEN j.status = 'running' AND j.deaths + 1 >= $4::int THEN now + $5::float8 ELSE j.run_at END,
        status = 'queued', process = NULL, token = NULL
    FROM orphan, moment WHERE j.ctid = orphan.address RETURNING 1
)
SELECT count(*) FROM moved;

-- name: enqueue
-- new -> queued, held by a process, free (null), or already leased to it as attempt 1: jobs without files, and of each
-- unique key one. What is here already, whatever became of it, is not stored again. Answers the processes that live.
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
)
SELECT ARRAY(SELECT id FROM alive) AS alive, ARRAY(SELECT id FROM entered) AS entered;

-- name: present
-- Which of these ids are here: of a job, or (true) of a call that leads to one.
SELECT id, false AS leads FROM afterward.jobs WHERE id = ANY ($1::text[])
UNION ALL SELECT id, false FROM afterward.finished WHERE id = ANY ($1::text[])
UNION ALL SELECT id, true FROM afterward.aliases WHERE id = ANY ($1::text[]);

-- name: holder
-- Who has a unique key, kept as it is until the end of the transaction.
SELECT id, status, coalesce(expires_at <= coalesce($1::float8, extract(epoch FROM statement_timestamp())::float8), false) AS has_expired
FROM afterward.jobs WHERE task = $2 AND unique_key = $3 AND replaced_by IS NULL FOR UPDATE;

-- name: alive
-- Which of these processes have a row.
SELECT id FROM afterward.processes WHERE id = ANY ($1::text[]);

-- name: alias
-- The id of a call that found its unique key taken leads to the job that has it.
INSERT INTO afterward.aliases (id, job) VALUES ($1, $2) ON CONFLICT DO NOTHING;

-- name: replace_running
-- It keeps its attempt, and gets no other: it has expired from the beginning of time, however clocks are set.
UPDATE afterward.jobs SET replaced_by = $2, expires_at = 0 WHERE id = $1 AND status = 'running';

-- name: cancel
-- queued -> cancelled, held or not; with a note
WITH gone AS (
    DELETE FROM afterward.jobs WHERE id = $2 AND status = 'queued' RETURNING *
)
INSERT INTO afterward.finished (
    seq, run_at, created_at, started_at, finished_at, expires_at, timeout, priority, attempt, failures, deaths, max_attempts,
    status, id, task, queue, unique_key, unfit_for, note, failure, context, arguments
)
SELECT
    seq, run_at, created_at, started_at, coalesce($1::float8, extract(epoch FROM statement_timestamp())::float8), expires_at, timeout,
    priority, attempt, failures, deaths, max_attempts, 'cancelled', id, task, queue, unique_key, unfit_for, $3::text, failure, context, arguments
FROM gone RETURNING id;

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
    status, id, task, queue, unique_key, unfit_for, note, failure, context, arguments
)
SELECT
    seq, run_at, created_at, started_at, now, expires_at, timeout, priority, attempt, failures, deaths, max_attempts, 'cancelled',
    id, task, queue, unique_key, unfit_for, coalesce('replaced by ' || replaced_by, 'expired'), failure, context, arguments
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
-- ready or to expire before ($5), or when this token has been given something. One row at least: what follows the ten
-- columns of the lease stands in each; and bookmarks (below), where it has read some $6 entries of the index that led to
-- no job: dead ones, which may not be removed yet. (A page of such as nobody looks at again costs as much as 20.)
WITH RECURSIVE state AS MATERIALIZED (
    SELECT
        coalesce($1::float8, extract(epoch FROM statement_timestamp())::float8) AS now,
        EXISTS (SELECT 1 FROM afterward.processes p WHERE p.id = $2) AS is_alive,
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
        AND NOT wanted.unfit_for ? lane.unfit_for
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
        candidate.number, candidate.place
), given AS (
    SELECT * FROM claimed
    UNION ALL
    SELECT id, attempt, process, task, arguments, context, failures, deaths, max_attempts, timeout, 0, seq FROM again
)
SELECT given.id, given.attempt, given.process, given.task, given.arguments, given.context, given.failures, given.deaths,
    given.max_attempts, given.timeout,
    has_more OR EXISTS (SELECT 1 FROM again) AS more,
    (SELECT min(run_at) FROM afterward.jobs WHERE status = 'queued' AND NOT due) - now AS next_due,
    EXISTS (
        SELECT 1 FROM lane WHERE NOT EXISTS (
            SELECT 1 FROM wanted WHERE wanted.tasks ? lane.task AND (wanted.queues IS NULL OR wanted.queues ? lane.queue)
                AND NOT wanted.unfit_for ? lane.unfit_for
        )
    ) AS for_others,
    needs_care, is_alive,
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
        EXISTS (SELECT 1 FROM afterward.processes p WHERE p.id = $2) AS is_alive
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
        AND NOT wanted.unfit_for ? mark.unfit_for
), candidate AS MATERIALIZED (
    SELECT *, row_number() OVER (PARTITION BY number ORDER BY priority DESC, run_at, seq) AS place FROM found
), claimed AS (
    UPDATE afterward.jobs j SET
        status = 'running', process = $2, token = $3, attempt = j.attempt + 1, started_at = now, note = NULL, unfit_for = ''
    FROM candidate, state
    WHERE j.ctid = candidate.address AND candidate.place <= candidate.room AND (j.expires_at IS NULL OR j.expires_at > now)
    RETURNING j.id, j.attempt, j.process, j.task, j.arguments, j.context, j.failures, j.deaths, j.max_attempts, j.timeout,
        candidate.number, candidate.place
), given AS (
    SELECT * FROM claimed
    UNION ALL
    SELECT id, attempt, process, task, arguments, context, failures, deaths, max_attempts, timeout, 0, seq FROM again
)
SELECT given.id, given.attempt, given.process, given.task, given.arguments, given.context, given.failures, given.deaths,
    given.max_attempts, given.timeout,
    is_alive, (
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
-- queued -> running, for jobs that a person names, due or not.
WITH moment AS MATERIALIZED (
    SELECT coalesce($1::float8, extract(epoch FROM statement_timestamp())::float8) AS now
), wanted AS MATERIALIZED (
    SELECT * FROM jsonb_to_recordset($4::jsonb) AS w (number int, tasks jsonb, queues jsonb, unfit_for jsonb, room int, "only" jsonb)
), candidate AS MATERIALIZED (
    SELECT j.ctid AS address, wanted.room, j.priority, j.run_at, j.seq FROM afterward.jobs j CROSS JOIN wanted
    WHERE j.id = ANY ($5::text[]) AND wanted."only" ? j.id AND j.status = 'queued' AND j.process IS NULL
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
RETURNING j.id, j.attempt, j.process, j.task, j.arguments, j.context, j.failures, j.deaths, j.max_attempts, j.timeout, placed.place;

-- name: end_for_good
-- running -> succeeded | failed. What a transaction of somebody else has locked is passed over.
WITH moment AS MATERIALIZED (
    SELECT coalesce($1::float8, extract(epoch FROM statement_timestamp())::float8) AS now
), mine AS MATERIALIZED (
    SELECT e.outcome, e.result, e.failure, e.has_died, held.address
    FROM unnest($2::text[], $3::int[], $4::text[], $5::text[], $6::text[], $7::text[], $8::bool[])
        AS e (id, attempt, process, outcome, result, failure, has_died)
    CROSS JOIN LATERAL (
        SELECT j.ctid AS address FROM afterward.jobs j
        WHERE j.id = e.id AND j.attempt = e.attempt AND j.process IS NOT DISTINCT FROM e.process AND j.status = 'running'
        FOR UPDATE SKIP LOCKED
    ) held
), gone AS (
    DELETE FROM afterward.jobs j USING mine WHERE j.ctid = mine.address
    RETURNING j.*, mine.outcome, mine.result, mine.failure AS told, mine.has_died
), remembered AS (
    INSERT INTO afterward.attempts (job, number, outcome, started_at, ended_at, failure)
    SELECT id, attempt, outcome, started_at, now, told FROM gone, moment WHERE outcome <> 'succeeded' ON CONFLICT DO NOTHING
)
INSERT INTO afterward.finished (
    seq, run_at, created_at, started_at, finished_at, expires_at, timeout, priority, attempt, failures, deaths, max_attempts,
    status, id, task, queue, unique_key, unfit_for, note, failure, context, arguments, result
)
SELECT
    seq, run_at, created_at, started_at, now, expires_at, timeout, priority, attempt,
    failures + (outcome = 'failed')::int, deaths + has_died::int, max_attempts,
    CASE WHEN outcome = 'succeeded' THEN 'succeeded' ELSE 'failed' END, id, task, queue, unique_key, unfit_for, note,
    coalesce(told, failure), context, arguments, result
FROM gone, moment RETURNING id;

-- name: end_for_now
-- running -> queued. What a transaction of somebody else has locked is passed over.
WITH moment AS MATERIALIZED (
    SELECT coalesce($1::float8, extract(epoch FROM statement_timestamp())::float8) AS now
), mine AS MATERIALIZED (
    SELECT e.*, held.address, held.started_at
    FROM unnest($2::text[], $3::int[], $4::text[], $5::text[], $6::text[], $7::text[], $8::text[], $9::float8[])
        AS e (id, attempt, process, outcome, failure, note, unfit_for, delay)
    CROSS JOIN LATERAL (
        SELECT j.ctid AS address, j.started_at FROM afterward.jobs j
        WHERE j.id = e.id AND j.attempt = e.attempt AND j.process IS NOT DISTINCT FROM e.process AND j.status = 'running'
        FOR UPDATE SKIP LOCKED
    ) held
), moved AS (
    UPDATE afterward.jobs j SET
        status = 'queued', process = NULL, token = NULL, due = mine.delay <= 0,
        run_at = CASE WHEN mine.delay > 0 THEN now + mine.delay ELSE j.run_at END,
        failures = j.failures + (mine.outcome = 'retry')::int, deaths = j.deaths + (mine.outcome = 'died')::int,
        failure = coalesce(mine.failure, j.failure), note = mine.note, unfit_for = mine.unfit_for
    FROM mine, moment WHERE j.ctid = mine.address
    RETURNING j.id, j.attempt, mine.outcome, mine.started_at, mine.failure, mine.note, mine.unfit_for
), remembered AS (
    INSERT INTO afterward.attempts (job, number, outcome, started_at, ended_at, failure, note)
    SELECT id, attempt, outcome, started_at, now, failure, note FROM moved, moment WHERE unfit_for = '' ON CONFLICT DO NOTHING
)
SELECT id FROM moved;

-- name: refused
-- Of attempts whose end was refused: do they still hold their job, which was locked? Or is it just how they ended?
SELECT
    EXISTS (
        SELECT 1 FROM afterward.jobs j
        WHERE j.id = e.id AND j.attempt = e.attempt AND j.process IS NOT DISTINCT FROM e.process AND j.status = 'running'
    ) AS holds,
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
        queue, unique_key, note, failure, context, arguments
    ) OVERRIDING SYSTEM VALUE
    SELECT seq, now, created_at, started_at, CASE WHEN expires_at > now THEN expires_at END, timeout, priority, attempt, max_attempts,
        true, 'queued', id, task, queue, unique_key, 'retried', failure, context, arguments
    FROM afterward.finished, moment WHERE id = $2 AND status IN ('failed', 'cancelled') FOR UPDATE OF finished
    ON CONFLICT DO NOTHING RETURNING id
)
DELETE FROM afterward.finished WHERE id = $2 AND EXISTS (SELECT 1 FROM back) RETURNING id;

-- name: prune
-- The oldest of those that ended with this status up to a time; all that is theirs goes with them.
WITH old AS MATERIALIZED (
    SELECT ctid AS address, id FROM afterward.finished
    WHERE status = $2 AND finished_at <= coalesce($1::float8, extract(epoch FROM statement_timestamp())::float8) - $3::float8
    ORDER BY finished_at LIMIT $4 FOR UPDATE SKIP LOCKED
), attempts_gone AS (
    DELETE FROM afterward.attempts WHERE job = ANY (ARRAY(SELECT id FROM old))
), aliases_gone AS (
    DELETE FROM afterward.aliases WHERE job = ANY (ARRAY(SELECT id FROM old))
), files_left AS (
    UPDATE afterward.files SET job = NULL WHERE job = ANY (ARRAY(SELECT id FROM old))
)
DELETE FROM afterward.finished f USING old WHERE f.ctid = old.address RETURNING f.id;

-- name: untidy
-- Is there anything to do away with: what has expired, what ended long ago (by status and age), files that nobody wants?
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
    ) AS has_loose;

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
SELECT asked.id AS asked, j.*, (
    SELECT json_agg(json_build_array(a.number, a.outcome, a.started_at, a.ended_at, a.failure, a.note) ORDER BY a.number)
    FROM afterward.attempts a WHERE a.job = j.id
) AS attempts
FROM unnest($1::text[]) AS asked (id) CROSS JOIN LATERAL (
    SELECT 0 AS seq, id, task, queue, priority, status, attempt, failures, deaths, arguments, NULL AS result, failure, note,
        unique_key, process, created_at, run_at, started_at, NULL::float8 AS finished_at, unfit_for, max_attempts, timeout, expires_at
    FROM afterward.jobs WHERE id = coalesce((SELECT job FROM afterward.aliases a WHERE a.id = asked.id), asked.id)
    UNION ALL
    SELECT 0, id, task, queue, priority, status, attempt, failures, deaths, arguments, result, failure, note,
        unique_key, NULL, created_at, run_at, started_at, finished_at, unfit_for, max_attempts, timeout, expires_at
    FROM afterward.finished WHERE id = coalesce((SELECT job FROM afterward.aliases a WHERE a.id = asked.id), asked.id)
) j;

-- name: list
-- Newest first. A null filter lets everything pass. What was stored before a time ($5) passes too: whoever reads stops
-- there. Where the job that it is to begin after ($4) is gone, it begins with the one whose id is next below.
SELECT * FROM (
    (
        SELECT 0 AS seq, id, task, queue, priority, status, attempt, failures, deaths, arguments, NULL AS result, failure, note,
            unique_key, process, created_at, run_at, started_at, NULL::float8 AS finished_at, unfit_for, max_attempts, timeout, expires_at
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
            unique_key, NULL, created_at, run_at, started_at, finished_at, unfit_for, max_attempts, timeout, expires_at
        FROM afterward.finished
        WHERE (created_at < $5 OR (
                ($1::text[] IS NULL OR status = ANY ($1)) AND ($2::text IS NULL OR task = $2)
                AND ($3::text IS NULL OR queue = $3) AND ($7::text IS NULL OR unique_key = $7)
            ))
            AND ($4::text IS NULL OR id < coalesce((SELECT job FROM afterward.aliases WHERE id = $4), $4))
        ORDER BY id DESC LIMIT $6
    )
) AS both_tables ORDER BY id DESC LIMIT $6;

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
-- By queue: what has come due and was not made ready yet, since when, and what waits for its time; up to so many ($2).
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
SELECT lane.queue, overdue.jobs AS overdue, overdue.since, later.jobs AS later
FROM moment CROSS JOIN lane CROSS JOIN LATERAL (
    SELECT count(*) AS jobs, min(run_at) AS since FROM (
        SELECT j.run_at FROM afterward.jobs j
        WHERE j.status = 'queued' AND NOT j.due AND j.process IS NULL AND j.queue = lane.queue AND j.run_at <= now
        ORDER BY j.run_at LIMIT $2
    ) found
) overdue CROSS JOIN LATERAL (
    SELECT count(*) AS jobs FROM (
        SELECT 1 FROM afterward.jobs j
        WHERE j.status = 'queued' AND NOT j.due AND j.process IS NULL AND j.queue = lane.queue AND j.run_at > now
        ORDER BY j.run_at LIMIT $2
    ) found
) later ORDER BY lane.queue;

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
