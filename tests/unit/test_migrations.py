"""The numbers of migrations, by which a store tells which of them it has."""

import pytest

from afterward.stores.sql import load_migrations


@pytest.mark.parametrize("kind", ["postgres", "sqlite"])
def test_migrations_are_numbered_one_after_the_other(kind: str) -> None:
    """Of two with one number, which two branches may have brought, a store gets one."""
    numbers = [number for number, _ in load_migrations(f"afterward.stores.{kind}")]
    assert numbers == list(range(1, len(numbers) + 1))
