"""What afterward is compared with on PostgreSQL: each library's worker, app and client in a file of its own.

Every file has the same names: `app`, with an endpoint that enqueues one job before it answers 202; `create`, which
makes the tables as the library does; `fill`; `enqueueing`, a client; and `work`, a worker. Its docstring says which
settings it has, and why. They are run by `__main__`, those of others in an environment that has no afterward.
"""
