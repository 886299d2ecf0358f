"""MODULE:NAME → the program: whose tasks they are, and the applications around them."""

from __future__ import annotations

import importlib
import re
import sys
import traceback
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

from starlette.applications import Starlette

from afterward.app import Afterward
from afterward.errors import ConfigurationError

_TARGET = re.compile(r"([^\W\d]\w*(?:\.[^\W\d]\w*)*):([^\W\d]\w*(?:\.[^\W\d]\w*)*)")


@dataclass(frozen=True, slots=True)
class Program:
    """Each `Afterward` that has tasks, and the application that was named, or those that they are installed on."""

    afterwards: list[Afterward]
    apps: list[Starlette]


def load(target: str) -> Program:
    """Import what `target` names: an Afterward, or an application that one or more are installed on.

    Raises `ConfigurationError` when it names something else, or when no task is declared there.
    """
    module, found = _find(target)
    afterwards = _afterwards(found)
    if afterwards is None:
        kind = type(found).__name__
        raise ConfigurationError(
            f"{target} is of type {kind}, not an Afterward or a FastAPI app; {_candidates(module)}"
        )
    if not afterwards:
        raise ConfigurationError(f"{target} is an app without durable tasks; call tasks.install(app) where it is made")
    if not any(afterward.tasks for afterward in afterwards):
        raise ConfigurationError(
            f"{target} declares no tasks, so there is nothing to run; "
            f"import the modules that hold your @tasks.task functions in {module.__name__}"
        )
    apps = [found] if isinstance(found, Starlette) else [app for afterward in afterwards for app in afterward.apps]
    return Program([afterward for afterward in afterwards if afterward.tasks], apps)


def _find(target: str) -> tuple[ModuleType, object]:
    named = _TARGET.fullmatch(target)
    if named is None:
        raise _malformed(target)
    here = str(Path.cwd())
    if here not in sys.path and "" not in sys.path:
        sys.path.insert(0, here)
    module = _import(named[1], here, target)
    found: object = module
    for name in named[2].split("."):
        try:
            found = getattr(found, name)
        except AttributeError:
            raise ConfigurationError(f"{target}: {named[1]} has no {named[2]!r}; {_candidates(module)}") from None
    return module, found


def _malformed(target: str) -> ConfigurationError:
    return ConfigurationError(f"{target!r} is not of the form MODULE:NAME; {_form_of(target)}")


def _form_of(target: str) -> str:
    path, _, name = target.partition(":")
    module = path.removesuffix(".py").strip("./\\").replace("/", ".").replace("\\", ".")
    if path != module and _TARGET.fullmatch(f"{module}:{name or 'app'}"):
        return f"for this file write {module}:{name or 'app'}"
    return "for an app named app in main.py write main:app"


def _import(name: str, here: str, target: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is not None and (name == error.name or name.startswith(f"{error.name}.")):
            if name.endswith(".py"):
                raise _malformed(target) from None
            raise ConfigurationError(
                f"there is no module {error.name!r} in {here}, and none is installed; "
                f"run this in the folder that holds it, or set PYTHONPATH"
            ) from None
        raise _broken(name, error) from error
    except Exception as error:  # whatever the user's module raises
        raise _broken(name, error) from error
    except SystemExit:
        raise ConfigurationError(
            f"module {name} ends the interpreter when it is imported; "
            f"put what it starts under `if __name__ == '__main__':`"
        ) from None


def _broken(name: str, error: Exception) -> ConfigurationError:
    traceback.print_exception(error)
    return ConfigurationError(f"module {name} cannot be imported: {type(error).__name__}: {error}")


def _afterwards(found: object) -> list[Afterward] | None:
    if isinstance(found, Afterward):
        return [found]
    if isinstance(found, Starlette):
        installed: list[Afterward] = getattr(found.state, "afterward", [])
        return installed
    return None


def _candidates(module: ModuleType) -> str:
    names = [name for name, value in vars(module).items() if not name.startswith("_") and _afterwards(value)]
    if names:
        return "did you mean " + " or ".join(f"{module.__name__}:{name}" for name in names) + "?"
    return f"{module.__name__} has no Afterward, and no app that one is installed on"
