"""The parts of an `Afterward` that a user never sees."""

from afterward import Afterward
from afterward.intake import Intake
from afterward.liveness import Liveness


def liveness_of(tasks: Afterward) -> Liveness:
    return tasks._liveness  # pyright: ignore[reportPrivateUsage]


def intake_of(tasks: Afterward) -> Intake:
    return tasks._intake  # pyright: ignore[reportPrivateUsage]
