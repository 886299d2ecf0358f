"""Orders: a router."""

import csv
import shutil
import sqlite3
import tempfile
from pathlib import Path

from fastapi import APIRouter, BackgroundTasks
from fastapi.responses import FileResponse
from pydantic import BaseModel
from starlette.background import BackgroundTask

from .database import Database
from .mail import send_mail

router = APIRouter(prefix="/orders")


class Order(BaseModel):
    email: str
    item: str


def confirm(db: sqlite3.Connection, order_id: int) -> None:
    email, item = db.execute("SELECT email, item FROM orders WHERE id = ?", (order_id,)).fetchone()
    send_mail(email, "Your order", f"We are packing: {item}.")
    db.execute("UPDATE orders SET state = 'confirmed' WHERE id = ?", (order_id,))


@router.post("", status_code=202)
def place_order(order: Order, db: Database, background_tasks: BackgroundTasks) -> dict[str, int | None]:
    new = "INSERT INTO orders (email, item, state) VALUES (?, ?, 'new')"
    order_id = db.execute(new, (order.email, order.item)).lastrowid
    background_tasks.add_task(confirm, db, order_id)
    background_tasks.add_task(lambda: send_mail("stock@example.com", "Sold", order.item))
    return {"order": order_id}


@router.get("/export")
def export_orders(db: Database) -> FileResponse:
    folder = tempfile.mkdtemp()
    file = Path(folder, "orders.csv")
    with file.open("w", newline="") as out:
        csv.writer(out).writerows(db.execute("SELECT id, item FROM orders"))
    return FileResponse(file, background=BackgroundTask(shutil.rmtree, folder))
