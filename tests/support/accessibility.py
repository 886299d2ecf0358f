"""The rules of accessibility that a page breaks, as axe-core finds them."""

from collections.abc import Sequence
from typing import Any, cast

from axe_playwright_python.sync_playwright import Axe  # pyright: ignore[reportMissingTypeStubs]
from playwright.sync_api import Page


def broken_rules(page: Page, rules: Sequence[str]) -> list[tuple[str, list[str]]]:
    """Each with the elements that break it. `rules`: their names, or those of groups of them."""
    axe = cast("Any", Axe())
    found: list[dict[str, Any]] = axe.run(page, options={"runOnly": list(rules)}).response["violations"]
    return [(rule["id"], [node["html"][:300] for node in rule["nodes"]]) for rule in found]
