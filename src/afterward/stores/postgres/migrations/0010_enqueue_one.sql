-- As the query `enqueue` of one plain job for anybody, and then a notification, in one round trip; its parts as parameters of
-- their own, for arrays of one cost more than the rest. In two transactions: NOTIFY takes a lock of the whole server through
-- its commit, and the second of these waits for no disk. To be called outside of any transaction.
CREATE PROCEDURE afterward.enqueue_one (
    moment float8, id text, task text, queue text, priority bigint, delay float8, run_at float8, arguments text, context text,
    max_attempts int, timeout float8, expires_at float8, expires_in float8, owner text, origin text, channel text
) LANGUAGE plpgsql AS $body$
BEGIN
moment := coalesce(moment, extract(epoch FROM statement_timestamp())::float8);
run_at := coalesce(run_at, moment + delay);
INSERT INTO afterward.jobs (
    id, task, queue, priority, status, attempt, due, run_at, arguments, context, created_at, max_attempts, timeout, expires_at
)
SELECT $2, $3, $4, $5, 'queued', 0, $7 <= $1, $7, $8, $9, $1, $10, $11, coalesce($12, $1 + $13)
WHERE NOT EXISTS (SELECT 1 FROM afterward.finished f WHERE f.id = $2 OFFSET 0)
ON CONFLICT DO NOTHING;
IF owner IS NOT NULL OR origin IS NOT NULL THEN
    INSERT INTO afterward.origins (job, owner, origin) VALUES ($2, $14, $15) ON CONFLICT DO NOTHING;
END IF;
COMMIT;
PERFORM set_config('synchronous_commit', 'off', true), pg_notify(channel, '');
END
$body$;

DROP PROCEDURE afterward.enqueue_ringing;
