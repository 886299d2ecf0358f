"""Everything afterward raises, in one small tree."""


class AfterwardError(Exception):
    """The root of all errors of this library."""


class ConfigurationError(AfterwardError):
    """The set-up is wrong: found at import or at start-up, never while a request is served."""


class TaskError(ConfigurationError):
    """A function was declared as a task in a way that cannot work."""


class ArgumentError(AfterwardError, TypeError):
    """A call was refused: its arguments do not fit the function, or could not be stored and read back equal."""


class ArgumentsDoNotFit(AfterwardError):
    """Stored arguments no longer fit the function known here; the job waits for a process that they fit."""


class ResultError(AfterwardError):
    """A task returned what cannot be stored."""


class NotInARequest(AfterwardError, RuntimeError):
    """A durable task was added outside of a request, or after it was over."""


class NoCurrentJob(AfterwardError, RuntimeError):
    """`current_job()` was called outside of a running job."""


class WorkerDied(AfterwardError):
    """What is recorded of a job whose worker process died while running it."""


class AttemptTimedOut(AfterwardError, TimeoutError):
    """What is recorded of an attempt that ran longer than its task's `timeout`."""


class StoreError(AfterwardError):
    """The store could not do what it was asked."""


class StoreUnavailable(StoreError):
    """The store cannot answer now (locked, full, failing); trying again later may work."""


class StoreUnusable(StoreError, ConfigurationError):
    """The store can never work like this: not our file, a newer schema, a network file system."""
