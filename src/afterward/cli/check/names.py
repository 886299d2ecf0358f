"""What names stand for where they are read: by assignment, by import, by a star, or as Python's own."""

from __future__ import annotations

import builtins
import sys
from dataclasses import replace

from afterward.cli.check.asking import Asking
from afterward.cli.check.codebase import CodeBase
from afterward.cli.check.scopes import Binding, Imported, Module, Scope
from afterward.cli.check.values import External, Source, Unknown, Value, joined

_STARRED = {
    "afterward": {"Afterward", "BackgroundTask", "BackgroundTasks"},
    "fastapi": {"BackgroundTasks", "Depends", "Request", "UploadFile", "WebSocket"},
    "starlette": {"BackgroundTask", "BackgroundTasks", "Request", "WebSocket"},
}


class Names:
    """Looks names up in scopes and modules."""

    def __init__(self, code: CodeBase, ask: Asking) -> None:
        self._code = code
        self._ask = ask
        self._values: dict[int, Value] = {}  # of bindings, by their ids: they live as long as their modules

    def named(self, name: str, scope: Scope, line: int) -> Value:
        """What a name stands for on this line of a scope."""
        home: Scope | None = scope
        while home is not None:
            if name in home.bindings and (home is scope or home.kind != "class"):
                return self.bound(home.bindings[name], line if home is scope else None)
            home = home.parent
        if (starred := self._from_star(name, scope.module)) is not None:
            return starred
        return External(f"builtins.{name}") if hasattr(builtins, name) else Unknown()

    def bound(self, bindings: list[Binding], line: int | None = None) -> Value:
        """What the name is bound to: by the last binding that is sure, or one that may have come after it."""
        before = [binding for binding in bindings if line is None or binding.line < line] or bindings
        values: list[Value] = []
        for binding in sorted(before, key=lambda binding: binding.line, reverse=True):
            values.append(self._binding(binding))
            if binding.is_certain:
                break
        return joined(values)

    def imported(self, imported: Imported, importer: Module) -> Value:
        """What an import in `importer` gives."""
        found = self._code.find(importer, imported)
        if found is None:
            if imported.level or self._code.is_own(importer, imported.module):
                return Unknown("it is imported from a module that is not there")
            return External(f"{imported.module}.{imported.name}" if imported.name else imported.module)
        if not imported.level and imported.module.partition(".")[0] in sys.stdlib_module_names:
            return Unknown("it has the name of one of Python's own modules")
        return Source(found) if imported.name is None else self.of_module(found, imported.name)

    def of_module(self, module: Module, name: str) -> Value:
        """`module.name`, once all of the module has been run."""
        if name in module.scope.bindings:
            return self.bound(module.scope.bindings[name])
        submodule = self._code.submodule(module, name)
        if submodule is not None:
            return Source(submodule)
        return self._from_star(name, module) or Unknown()

    def _from_star(self, name: str, module: Module) -> Value | None:
        for imported in module.scope.stars:
            found = self.imported(replace(imported, name=None), module)
            if isinstance(found, Source) and found.module is not module:
                value = self.of_module(found.module, name)
                if not isinstance(value, Unknown):
                    return value
            elif isinstance(found, External) and name in _STARRED.get(found.root, ()):
                return External(f"{found.path}.{name}")
        return Unknown() if module.scope.stars and not hasattr(builtins, name) else None

    def _binding(self, binding: Binding) -> Value:
        if id(binding) not in self._values:
            self._values[id(binding)] = Unknown()  # to itself
            self._values[id(binding)] = self._ask.bound_to(binding)
        return self._values[id(binding)]
