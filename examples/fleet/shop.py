"""The Celery project of the shop, as it is: nothing in it knows of afterward."""

import os

from celery import Celery

from examples.fleet.ledger import book

broker = os.environ.get("SHOP_BROKER", "redis://127.0.0.1:6379/0")
app = Celery("shop", broker=broker, backend=broker)
app.conf.update(task_track_started=True)


@app.task(autoretry_for=(OSError,), retry_backoff=True)
def write_invoice(order: int, cents: int) -> str:
    """Write the invoice of an order; its number."""
    book("invoice", order)
    return f"{order:06}-{cents}"
