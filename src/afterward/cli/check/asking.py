"""What the parts of an evaluation ask of the whole: there they meet, for each of them needs all the others."""

from __future__ import annotations

import ast
from typing import Protocol

from afterward.cli.check.scopes import Binding, Scope
from afterward.cli.check.values import Value


class Asking(Protocol):
    """Says what anything stands for, and ends what leads deeper and deeper.

    So a part asks here for whatever is nested in what it reads, and never calls itself for it.
    """

    def value(self, node: ast.expr, scope: Scope) -> Value:
        """What an expression stands for where it stands."""
        ...

    def of_type(self, annotation: ast.expr, scope: Scope) -> Value:
        """An object of the type that an annotation names."""
        ...

    def bound_to(self, binding: Binding) -> Value:
        """What one binding gives its name."""
        ...
