"""Jobs that are stored by a transaction of the application's own: together with what else it writes, or not at all.

A job that joins a transaction is written by it, on its connection, `queued` and free: it may start at the commit, which
may be before the response of its request is sent. Until the commit nobody can see it: not a worker, not a handle.

What can come between, and what is true then:

- The transaction, or the savepoint that the job was added in, is rolled back: the job is gone with it. So it is when
  the commit fails, or the process dies before it.
- The commit succeeds, and its answer is lost: the application hears of an error, and the job is stored and runs, as
  what else was written stays written.
- The request is cancelled in mid-commit: one of the two, and never a part of it.
- The response starts while the transaction is open: what it promises might never come. The client gets 500 in its
  place, and the log says why (`NotCommitted`). One that tells of a failure, from 400 on, promises nothing.
- A task is added after a commit: it belongs to the next transaction of the session, and the same is true of that.
- The session is closed without a commit: as above, for nobody said that it was to be rolled back.

A SQLAlchemy session tells of its commit, so jobs are gathered, and written by one statement before it. A connection of
a driver tells nothing: there, a job is written at once, and the server is asked whether its transaction is over.
"""
