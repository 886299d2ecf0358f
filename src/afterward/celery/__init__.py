"""Jobs that a Celery fleet runs. The library `celery` is imported by what is in here alone, and only where it is used.

The store holds the truth. A relay claims a job, has Celery's broker confirm a message of it, and hands it over.
"""
