"""A task whose module does not come to an end when a process imports it that was told so."""

import os
import time

from afterward import Afterward

if "HANGS_AT_IMPORT" in os.environ:
    time.sleep(3600)

tasks = Afterward("sqlite:///never-opened.db")


@tasks.task
def hang() -> None: ...
