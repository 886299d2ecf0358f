-- Jobs in the hands of another system. Their own `run_at` is then 253402214400.5, or 253402214400.75 if they are followed
-- there, at the end of 9999: so no claim finds them, and the version before, which knows nothing of this, lets them wait. What
-- is here of a job counts only with the attempt that it has, and as long as it is so; the rest is done away with.
CREATE TABLE afterward.handed (
    handed_at double precision NOT NULL,
    -- From when on its message is to be sent once more; null: never.
    again_at double precision,
    -- When the job was due before it was handed over.
    run_at double precision NOT NULL,
    attempt integer NOT NULL,
    is_followed boolean NOT NULL,
    job text COLLATE "C" PRIMARY KEY,
    -- Of the job, and never another.
    task text COLLATE "C" NOT NULL,
    queue text COLLATE "C" NOT NULL
) WITH (autovacuum_vacuum_threshold = 1000, autovacuum_vacuum_scale_factor = 0.05, autovacuum_vacuum_cost_delay = 0);

CREATE INDEX handed_again ON afterward.handed (task, queue, again_at) WHERE again_at IS NOT NULL;
CREATE INDEX handed_followed ON afterward.handed (task, job) WHERE is_followed;

-- Who may use the table of jobs may use this as well.
DO $$
DECLARE
    granted record;
BEGIN
    FOR granted IN
        SELECT coalesce(quote_ident(r.rolname), 'PUBLIC') AS who, g.privilege_type AS what
        FROM pg_class c CROSS JOIN LATERAL aclexplode(c.relacl) g LEFT JOIN pg_roles r ON r.oid = g.grantee
        WHERE c.oid = 'afterward.jobs'::regclass AND g.grantee <> c.relowner
    LOOP
        EXECUTE format('GRANT %s ON afterward.handed TO %s', granted.what, granted.who);
    END LOOP;
END $$;
