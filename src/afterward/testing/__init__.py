"""What tests of an application use: `Bench`, and `fixture` to make a pytest fixture of it."""

from afterward.faults import Crash
from afterward.testing.bench import Bench
from afterward.testing.clock import Clock
from afterward.testing.conducting import NoAnswer
from afterward.testing.failures import AttemptFailed
from afterward.testing.fixtures import fixture
from afterward.testing.mortal import Point

__all__ = ["AttemptFailed", "Bench", "Clock", "Crash", "NoAnswer", "Point", "fixture"]
