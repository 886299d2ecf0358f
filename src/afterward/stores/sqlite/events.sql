-- name: stream
-- What the job of an attempt that still holds it has said so far; nulls where it has said nothing.
SELECT j.seq, s.seq, s.last, s.attempt, s.said, s.progress FROM jobs j LEFT JOIN streams s ON s.job = j.seq
WHERE j.id = ?1 AND j.attempt = ?2 AND j.process = ?3 AND j.status = 'running';

-- name: begin_stream
INSERT INTO streams (job, last, attempt, said, progress) VALUES (?1, ?2, ?3, ?4, ?5) RETURNING seq;

-- name: extend_stream
UPDATE streams SET last = ?2, attempt = ?3, said = ?4, progress = ?5 WHERE seq = ?1;

-- name: append
-- A row for each event.
INSERT INTO events (stream, number, attempt, kind, data, at)
VALUES (?, ?, ?, ?, ?, ?);

-- name: trim
-- Those before a number.
DELETE FROM events WHERE stream = ?1 AND number < ?2;

-- name: stream_of
-- A job, and what it has said so far.
SELECT j.id, j.status, j.attempt, s.seq, s.last, (SELECT min(number) FROM events WHERE stream = s.seq)
FROM jobs j LEFT JOIN streams s ON s.job = j.seq
WHERE j.id = coalesce((SELECT job FROM aliases WHERE id = ?1), ?1);

-- name: events
SELECT number, attempt, kind, data, at FROM events WHERE stream = ?1 AND number > ?2 ORDER BY number LIMIT ?3;

-- name: unwanted_stream
-- Its job is forgotten.
SELECT seq FROM streams WHERE job IS NULL LIMIT 1;

-- name: free_events
DELETE FROM events WHERE (stream, number) IN (SELECT stream, number FROM events WHERE stream = ?1 ORDER BY number LIMIT ?2);

-- name: free_stream
DELETE FROM streams WHERE seq = ?1;
