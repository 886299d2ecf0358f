"""The shop's database."""

import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from typing import Annotated

from fastapi import Depends


def connect() -> sqlite3.Connection:
    db = sqlite3.connect(os.environ["SHOP_DATABASE"], check_same_thread=False)
    db.execute("CREATE TABLE IF NOT EXISTS orders (id INTEGER PRIMARY KEY, email, item, state)")
    return db


def get_db() -> Iterator[sqlite3.Connection]:
    with closing(connect()) as db, db:  # commits at the end
        yield db


Database = Annotated[sqlite3.Connection, Depends(get_db)]
