-- What a failure has in common with others of its cause; and since when a running job is asked to end. Columns that the
-- version before does not know of are filled for it.
ALTER TABLE afterward.attempts ADD COLUMN signature text COLLATE "C" NOT NULL DEFAULT '';
ALTER TABLE afterward.finished
    ADD COLUMN cancel_asked_at double precision, ADD COLUMN signature text COLLATE "C" NOT NULL DEFAULT '';
ALTER TABLE afterward.jobs
    ADD COLUMN cancel_asked_at double precision, ADD COLUMN signature text COLLATE "C" NOT NULL DEFAULT '';

-- Whose a job is, and the request that made it. It is written once, and stays where it is, while its job moves.
CREATE TABLE afterward.origins (
    job text COLLATE "C" PRIMARY KEY,
    owner text COLLATE "C",
    origin text
);
CREATE INDEX origins_owner ON afterward.origins (owner, job) WHERE owner IS NOT NULL;

-- What the attempts of a job have said, as far as the last report told.
CREATE TABLE afterward.streams (
    id bigint GENERATED ALWAYS AS IDENTITY,
    -- The number of the newest event, and how many of those before are gone.
    last bigint NOT NULL,
    gone bigint NOT NULL DEFAULT 0,
    -- The latest attempt that has said something, how much it has said, and how much of that the last report added.
    attempt integer NOT NULL,
    said bigint NOT NULL,
    added bigint NOT NULL,
    job text COLLATE "C" PRIMARY KEY,
    progress text
) WITH (fillfactor = 50, autovacuum_vacuum_threshold = 1000, autovacuum_vacuum_scale_factor = 0.05);

CREATE TABLE afterward.events (
    stream bigint NOT NULL,
    number bigint NOT NULL,
    at double precision NOT NULL,
    attempt integer NOT NULL,
    kind text COLLATE "C" NOT NULL,
    data text NOT NULL,
    PRIMARY KEY (stream, number)
);

-- What a process runs jobs of, as JSON: apart from its row, which is written with each beat.
CREATE TABLE afterward.served (
    process text COLLATE "C" PRIMARY KEY,
    served text NOT NULL
);

-- Tasks that some process has served.
CREATE TABLE afterward.tasks (
    task text COLLATE "C" PRIMARY KEY,
    version text NOT NULL,
    seen_at double precision NOT NULL
);

-- Queues of which nothing is claimed.
CREATE TABLE afterward.pauses (
    queue text COLLATE "C" PRIMARY KEY,
    since double precision NOT NULL,
    by text NOT NULL
);

-- Keys of requests: in the name of the process that answers one, until the job that it stores completes it.
CREATE TABLE afterward.reservations (
    id text COLLATE "C" PRIMARY KEY,
    scope text COLLATE "C" NOT NULL,
    key text COLLATE "C" NOT NULL,
    fingerprint text COLLATE "C" NOT NULL,
    process text COLLATE "C" NOT NULL,
    -- When it was reserved or, once it is completed, when that was.
    at double precision NOT NULL,
    answer text,
    UNIQUE (scope, key)
);
CREATE INDEX reservations_at ON afterward.reservations (at);

-- Who may use the table of jobs may use these as well.
DO $$
DECLARE
    granted record;
BEGIN
    FOR granted IN
        SELECT coalesce(quote_ident(r.rolname), 'PUBLIC') AS who, g.privilege_type AS what
        FROM pg_class c CROSS JOIN LATERAL aclexplode(c.relacl) g LEFT JOIN pg_roles r ON r.oid = g.grantee
        WHERE c.oid = 'afterward.jobs'::regclass AND g.grantee <> c.relowner
    LOOP
        EXECUTE format(
            'GRANT %s ON afterward.origins, afterward.streams, afterward.events, afterward.served, afterward.tasks, '
            'afterward.pauses, afterward.reservations TO %s', granted.what, granted.who
        );
    END LOOP;
END $$;
