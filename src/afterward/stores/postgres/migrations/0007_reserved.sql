-- Those that are not completed, by the process in whose name they are. A transaction of its own: while it is built, only
-- requests with keys wait.
CREATE INDEX reservations_open ON afterward.reservations (process) WHERE answer IS NULL;
