"""Who has been here: a dependency of all endpoints."""

import os
from collections import Counter
from pathlib import Path

from fastapi import BackgroundTasks, Request

visits: Counter[str] = Counter()


def count_visit(path: str) -> None:
    visits[path] += 1


def write_visit(request: Request) -> None:
    with Path(os.environ["SHOP_LOG"]).open("a") as log:
        log.write(f"{request.method} {request.url.path}\n")


def note_visit(request: Request, background_tasks: BackgroundTasks) -> None:
    background_tasks.add_task(count_visit, request.url.path)
    background_tasks.add_task(write_visit, request)
