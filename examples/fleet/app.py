"""The web app of the shop. Each order is four jobs in one store, and each of them runs where it is at home.

The invoice is written by the Celery task that the shop has always had. The forecast is a function of this module that
runs on the same Celery workers. Parcels are packed by `afterward worker`, and mail is sent from here.
"""

from fastapi import FastAPI
from pydantic import BaseModel

from afterward import Afterward, BackgroundTasks
from examples.fleet import shop
from examples.fleet.ledger import book

app = FastAPI(title="Shop")
tasks = Afterward(celery=shop.app)
tasks.install(app, queues=["mail"])
app.include_router(tasks.router(public=True))


class Order(BaseModel):
    """What somebody buys."""

    email: str
    cents: int


class Accepted(BaseModel):
    """The jobs of an order, by what they do."""

    jobs: dict[str, str]


@tasks.task(executor="celery", timeout=60)
def forecast(order: int, cents: int) -> int:
    """What will be bought next, in cents: on the Celery workers, for it takes long."""
    book("forecast", order)
    return sum(cents * step // 100 for step in range(100)) // 100


@tasks.task
def pack(order: int) -> None:
    """Pack a parcel: by `afterward worker`."""
    book("parcel", order)


@tasks.task(queue="mail")
async def thank(order: int, email: str) -> str:
    """Send a mail: from the process that serves the app."""
    book("mail", order)
    return f"to {email}: thank you for order {order}"


@app.post("/orders/{number}", status_code=202)
async def accept(number: int, order: Order, background_tasks: BackgroundTasks) -> Accepted:
    """All four jobs are stored, or none, before the answer leaves; and no broker is waited for."""
    jobs = {
        "invoice": background_tasks.add_task(shop.write_invoice, number, order.cents),
        "forecast": background_tasks.add_task(forecast, number, order.cents),
        "parcel": background_tasks.add_task(pack, number),
        "mail": background_tasks.add_task(thank, number, order.email),
    }
    return Accepted(jobs={what: job.id for what, job in jobs.items()})
