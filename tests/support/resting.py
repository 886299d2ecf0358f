"""A task that a child process can import, and that takes its time there."""

import time

from afterward import Afterward

tasks = Afterward("sqlite:///never-opened.db")


@tasks.task
def rest() -> None:
    time.sleep(60)
