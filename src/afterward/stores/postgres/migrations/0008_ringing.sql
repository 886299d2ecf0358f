-- The query `enqueue`, and then a notification, in one round trip. In two transactions: NOTIFY takes a lock of the whole
-- server through its commit, and the second of these waits for no disk. To be called outside of any transaction.
CREATE PROCEDURE afterward.enqueue_ringing (
    float8, text[], text[], text[], text[], bigint[], bool[], text[], float8[], float8[], text[], text[], text[], int[],
    float8[], float8[], float8[], text[], text[], text[], text[], channel text, INOUT alive text[], INOUT entered text[]
) LANGUAGE plpgsql AS $body$
BEGIN
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
SELECT ARRAY(SELECT id FROM alive) AS alive, ARRAY(SELECT id FROM entered) AS entered
INTO alive, entered;
COMMIT;
PERFORM set_config('synchronous_commit', 'off', true), pg_notify(channel, '');
END
$body$;
