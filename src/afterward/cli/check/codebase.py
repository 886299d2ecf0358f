"""The files of a code base, and which of them an import names. Each file is parsed once, when it is asked for."""

from __future__ import annotations

import ast
import functools
import importlib.machinery
import importlib.util
import re
import sys
import sysconfig
import warnings
from collections.abc import Iterable, Iterator
from pathlib import Path

from afterward.cli.check.files import is_of_interest, project_of, python_files
from afterward.cli.check.finding import Finding, shown
from afterward.cli.check.scopes import Imported, Module

_WELL_KNOWN = frozenset(("afterward", "fastapi", "starlette"))
_INSTALLS = re.compile(rb"\.install\(")
_USES_AFTERWARD = re.compile(rb"^\s*(?:from|import)\s+afterward\b", re.MULTILINE)


class CodeBase:
    """The files that are checked, and those that they import from around them."""

    def __init__(self, files: Iterable[Path], folders: Iterable[Path]) -> None:
        self.files = list(files)
        self.unreadable: list[Finding] = []
        self._folders = list(folders)
        self._bases = [Path.cwd(), *self._folders]
        self._tops = sorted({_top(file) for file in self.files})
        self._modules: dict[Path, Module] = {}
        self._checked = frozenset(self.files)
        self._roots = functools.cache(self._roots_of)
        self._place = functools.cache(_place)

    def modules_of_interest(self) -> Iterator[Module]:
        """Those of the checked files in which the rules can find anything; the others are parsed, for what it shows."""
        for file in self.files:
            source = self._source(file)
            if source is not None and is_of_interest(source):
                yield self.module(file, source)

    def parse_the_rest(self) -> None:
        """Parse what has not been, to find what cannot be parsed."""
        for file in self.files:
            if file not in self._modules and (source := self._source(file)) is not None:
                self._parse(file, source)

    def is_whole(self) -> bool:
        """Was a folder given, and is nothing that is left out of it likely to install tasks?"""
        projects = {project_of(folder) for folder in self._folders}
        others = (file for file in python_files(projects) if file not in self._checked)
        return bool(projects) and not any(_holds(file, _INSTALLS) for file in others)

    def is_checked(self, module: Module) -> bool:
        """Is it one of the files that were asked for?"""
        return module.path in self._checked

    def module(self, file: Path, source: bytes | None = None) -> Module:
        """A file's names, or those of a folder without a file: none."""
        if file not in self._modules:
            source = self._source(file) if source is None else source
            self._modules[file] = Module(file) if source is None else self._parsed(file, source)
        return self._modules[file]

    def find(self, importer: Module, imported: Imported) -> Module | None:
        """The module of the code base that an import in `importer` names; None when it is of somewhere else."""
        names = imported.module.split(".") if imported.module else []
        folder = importer.path if importer.path.is_dir() else importer.path.parent
        if imported.level:
            return self._in([folder, *folder.parents][imported.level - 1], names)
        if names[0] in _WELL_KNOWN:
            return None
        for root in self._roots(folder):
            found = self._in(root, names)
            if found is not None and not (found.path.is_dir() and is_library(names[0])):
                return found
        return None

    def is_own(self, importer: Module, module: str) -> bool:
        """Is the package that a module name begins with of the code base, be the module there or not?"""
        top = module.partition(".")[0]
        return top not in _WELL_KNOWN and self.find(importer, Imported(top)) is not None

    def submodule(self, package: Module, name: str) -> Module | None:
        """A module or package inside of a package."""
        if package.path.name == "__init__.py":
            return self._in(package.path.parent, [name])
        return self._in(package.path, [name]) if package.path.is_dir() else None

    def _in(self, root: Path, names: list[str]) -> Module | None:
        place = self._place(root.joinpath(*names))
        return None if place is None else self.module(place)

    def _roots_of(self, folder: Path) -> list[Path]:
        """The folders that absolute imports may start from, the likeliest first: those that are no packages."""
        bases = [base for base in self._bases if folder.is_relative_to(base)]
        ancestors = [folder, *folder.parents]
        package_end = next(i for i, path in enumerate(ancestors) if not (path / "__init__.py").is_file())
        end = max(package_end, *(ancestors.index(base) for base in [*bases, project_of(folder)])) + 1
        plain = [path for path in ancestors[:end] if not (path / "__init__.py").is_file()]
        packages = [path for path in ancestors[:end] if path not in plain]
        return [*plain, *(path / "src" for path in plain), *packages, *self._tops]

    def _source(self, file: Path) -> bytes | None:
        if file.is_dir():
            return None
        try:
            return file.read_bytes()
        except OSError as error:
            if file not in self._modules:
                self._modules[file] = Module(file)
                self._unreadable(file, f"it cannot be read: {error.strerror}")
            return None

    def _parsed(self, file: Path, source: bytes) -> Module:
        parsed = self._parse(file, source)
        return Module(file) if parsed is None else Module(file, *parsed)

    def _parse(self, file: Path, source: bytes) -> tuple[ast.Module, list[str]] | None:
        try:
            text = importlib.util.decode_source(source)
            with warnings.catch_warnings(action="ignore"):
                return ast.parse(text), text.split("\n")
        except SyntaxError as error:
            why = f"Python {sys.version_info.major}.{sys.version_info.minor} cannot parse it: {error.msg}"
            self._unreadable(file, why, error.lineno or 1, error.offset or 1)
        except (ValueError, RecursionError, MemoryError) as error:  # null bytes, wrong bytes, nested too deeply
            self._unreadable(file, f"it cannot be parsed: {error or type(error).__name__}")
        return None

    def _unreadable(self, file: Path, why: str, line: int = 1, column: int = 1) -> None:
        if file in self._checked:
            self.unreadable.append(Finding(shown(file), line, max(column, 1), "syntax", why))


@functools.cache
def is_library(name: str) -> bool:
    """Is this top-level module known to be no part of anyone's application?

    Python's own are; so is what is installed here, unless it has to do with afterward: it may hold tasks of its own.
    """
    if name in sys.stdlib_module_names or name in {"builtins", "fastapi", "starlette"}:
        return True
    sites = {sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}
    spec = importlib.machinery.PathFinder.find_spec(name, sorted(sites))
    if spec is None:
        return False
    folders = spec.submodule_search_locations
    files = (
        [path for folder in folders for path in Path(folder).rglob("*.py")] if folders else [Path(spec.origin or "")]
    )
    return not any(file.suffix == ".py" and _holds(file, _USES_AFTERWARD) for file in files)


def _holds(file: Path, pattern: re.Pattern[bytes]) -> bool:
    """Does it hold such text? One that cannot be read, such as a link to nowhere, holds none."""
    try:
        return pattern.search(file.read_bytes()) is not None
    except OSError:
        return False


def _top(file: Path) -> Path:
    """The folder that the module is imported from: the nearest that is no package."""
    return next(folder for folder in file.parents if not (folder / "__init__.py").is_file())


def _place(path: Path) -> Path | None:
    """The file of the module at this path, or the folder that is one."""
    for file in (path / "__init__.py", path.with_name(f"{path.name}.py")):
        if file.is_file():
            return file
    return path if path.is_dir() and any(any(path.glob(pattern)) for pattern in ("*.py", "*/*.py")) else None
