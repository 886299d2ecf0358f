-- name: enter
-- new -> queued, free, in the transaction of somebody else; of each unique key one. The one parameter is JSON. An id that
-- finds its unique key taken leads to the job that has it, if that can be seen.
WITH said AS MATERIALIZED (
    SELECT CAST($1 AS text)::json AS it
), home AS MATERIALIZED (
    SELECT coalesce((said.it ->> 'now')::float8, extract(epoch FROM statement_timestamp())::float8) AS now
    FROM said WHERE EXISTS (SELECT 1 FROM afterward.store s WHERE s.id::text = said.it ->> 'store')
), new AS MATERIALIZED (
    SELECT n.*, home.now FROM home CROSS JOIN said CROSS JOIN json_to_recordset(said.it -> 'jobs') AS n (
        place int, id text, task text, queue text, priority bigint, delay float8, run_at float8, unique_key text,
        arguments text, context text, max_attempts int, timeout float8, expires_at float8, expires_in float8, owner text,
        origin text
    )
), entered AS (
    INSERT INTO afterward.jobs (
        id, task, queue, priority, status, due, run_at, unique_key, arguments, context, created_at, max_attempts,
        timeout, expires_at
    )
    SELECT
        id, task, queue, priority, 'queued', coalesce(run_at, now + delay) <= now, coalesce(run_at, now + delay),
        unique_key, arguments, context, now, max_attempts, timeout, coalesce(expires_at, now + expires_in)
    FROM new ORDER BY place
    ON CONFLICT DO NOTHING RETURNING jobs.id
), told AS (
    INSERT INTO afterward.origins (job, owner, origin)
    SELECT id, owner, origin FROM new
    WHERE (owner IS NOT NULL OR origin IS NOT NULL) AND id IN (SELECT id FROM entered) ON CONFLICT DO NOTHING
), met AS MATERIALIZED (
    SELECT new.id, holder.id AS holder FROM new JOIN afterward.jobs holder
        ON holder.task = new.task AND holder.unique_key = new.unique_key AND holder.replaced_by IS NULL
    WHERE new.id NOT IN (SELECT id FROM entered)
), led AS (
    INSERT INTO afterward.aliases (id, job) SELECT id, holder FROM met ON CONFLICT DO NOTHING
)
SELECT CAST(json_build_object(
    'is_home', EXISTS (SELECT 1 FROM home), 'transaction', CAST(pg_current_xact_id() AS text),
    'entered', ARRAY(SELECT id FROM entered), 'met', ARRAY(SELECT id FROM met)
) AS text);

-- name: make_room
-- Who has the unique key of a job that is to be stored gives it up: one that waits and has expired, and where that is
-- wanted ("replace") any other. queued -> cancelled; one that runs, or is followed, in other hands, keeps its attempt, and gets
-- no other.
WITH said AS MATERIALIZED (
    SELECT CAST($1 AS text)::json AS it
), home AS MATERIALIZED (
    SELECT coalesce((said.it ->> 'now')::float8, extract(epoch FROM statement_timestamp())::float8) AS now
    FROM said WHERE EXISTS (SELECT 1 FROM afterward.store s WHERE s.id::text = said.it ->> 'store')
), holder AS MATERIALIZED (
    SELECT j.id, j.status, coalesce(j.expires_at <= home.now, false) AS has_expired
    FROM home CROSS JOIN said CROSS JOIN afterward.jobs j
    WHERE j.task = said.it ->> 'task' AND j.unique_key = said.it ->> 'unique_key' AND j.replaced_by IS NULL
        AND ((said.it ->> 'replaces')::bool OR (j.status = 'queued' AND j.expires_at <= home.now))
    FOR UPDATE OF j
), gone AS (
    DELETE FROM afterward.jobs j USING holder WHERE j.id = holder.id AND j.status = 'queued' AND j.run_at <> 253402214400.75 RETURNING j.*
), replaced AS (
    UPDATE afterward.jobs j SET replaced_by = said.it ->> 'id', expires_at = CASE WHEN j.run_at <> 253402214400.75 THEN 0 END
    FROM holder CROSS JOIN said WHERE j.id = holder.id AND (j.status = 'running' OR j.run_at = 253402214400.75) RETURNING j.id
), cancelled AS (
    INSERT INTO afterward.finished (
        seq, run_at, created_at, started_at, finished_at, expires_at, timeout, priority, attempt, failures, deaths,
        max_attempts, status, id, task, queue, unique_key, unfit_for, note, failure, context, arguments, cancel_asked_at,
        signature
    )
    SELECT
        seq, run_at, created_at, started_at, home.now, expires_at, timeout, priority, attempt, failures, deaths,
        max_attempts, 'cancelled', gone.id, task, queue, unique_key, unfit_for,
        CASE WHEN holder.has_expired THEN 'expired' ELSE 'replaced by ' || (said.it ->> 'id') END, failure, context,
        arguments, cancel_asked_at, signature
    FROM gone JOIN holder ON holder.id = gone.id CROSS JOIN home CROSS JOIN said RETURNING id
)
SELECT CAST(json_build_object(
    'is_home', EXISTS (SELECT 1 FROM home),
    'left', ARRAY(SELECT id FROM cancelled UNION ALL SELECT id FROM replaced)
) AS text);

-- name: link
-- From here on these files are a job's: those that are whole, and nobody's.
WITH said AS MATERIALIZED (
    SELECT CAST($1 AS text)::json AS it
), linked AS (
    UPDATE afterward.files f SET job = said.it ->> 'id', process = ''
    FROM said CROSS JOIN json_array_elements_text(said.it -> 'files') AS file (id)
    WHERE f.id = file.id AND f.job IS NULL AND f.chunks IS NOT NULL RETURNING f.id
)
SELECT CAST(json_build_object('linked', (SELECT count(*) FROM linked)) AS text);

-- name: hold
-- A reservation that is to be completed in this transaction: is it there? It stays as it is until its end.
WITH said AS MATERIALIZED (
    SELECT CAST($1 AS text)::json AS it
), home AS MATERIALIZED (
    SELECT 1 FROM said WHERE EXISTS (SELECT 1 FROM afterward.store s WHERE s.id::text = said.it ->> 'store')
), held AS MATERIALIZED (
    SELECT r.id FROM home CROSS JOIN said CROSS JOIN afterward.reservations r WHERE r.id = said.it ->> 'reservation'
    FOR UPDATE OF r
)
SELECT CAST(json_build_object(
    'is_home', EXISTS (SELECT 1 FROM home), 'is_held', EXISTS (SELECT 1 FROM held)
) AS text);

-- name: complete
-- The job is stored that it was made for.
WITH said AS MATERIALIZED (
    SELECT CAST($1 AS text)::json AS it
), completed AS (
    UPDATE afterward.reservations r SET answer = said.it ->> 'answer',
        at = coalesce((said.it ->> 'now')::float8, extract(epoch FROM statement_timestamp())::float8)
    FROM said WHERE r.id = said.it ->> 'reservation' RETURNING r.id
)
SELECT CAST(json_build_object('is_home', true, 'completed', ARRAY(SELECT id FROM completed)) AS text);

-- name: end
-- running -> succeeded, in the transaction of somebody else. Whoever else has the job locked is waited for. The files of
-- the job are nobody's any more.
WITH said AS MATERIALIZED (
    SELECT CAST($1 AS text)::json AS it
), home AS MATERIALIZED (
    SELECT coalesce((said.it ->> 'now')::float8, extract(epoch FROM statement_timestamp())::float8) AS now
    FROM said WHERE EXISTS (SELECT 1 FROM afterward.store s WHERE s.id::text = said.it ->> 'store')
), gone AS (
    DELETE FROM afterward.jobs j USING home, said
    WHERE j.id = said.it ->> 'id' AND j.attempt = (said.it ->> 'attempt')::int AND j.process = said.it ->> 'process'
        AND j.status = 'running' RETURNING j.*
), ended AS (
    INSERT INTO afterward.finished (
        seq, run_at, created_at, started_at, finished_at, expires_at, timeout, priority, attempt, failures, deaths,
        max_attempts, status, id, task, queue, unique_key, unfit_for, note, failure, context, arguments, result,
        cancel_asked_at, signature
    )
    SELECT
        seq, run_at, created_at, started_at, home.now, expires_at, timeout, priority, attempt, failures, deaths,
        max_attempts, 'succeeded', gone.id, task, queue, unique_key, unfit_for, note, failure, context, arguments,
        said.it ->> 'result', cancel_asked_at, signature
    FROM gone CROSS JOIN home CROSS JOIN said RETURNING id
), unlinked AS (
    UPDATE afterward.files f SET job = NULL
    FROM said CROSS JOIN json_array_elements_text(said.it -> 'files') AS file (id)
    WHERE f.id = file.id AND f.job IN (SELECT id FROM ended) RETURNING f.id
)
SELECT CAST(json_build_object(
    'is_home', EXISTS (SELECT 1 FROM home), 'ended', EXISTS (SELECT 1 FROM ended),
    'owner', (SELECT o.owner FROM said JOIN afterward.origins o ON o.job = said.it ->> 'id'),
    'unlinked', (SELECT count(*) FROM unlinked)
) AS text);
