"""From `module:Class` to the worker it names."""

from __future__ import annotations

import importlib
import sys
import traceback
from pathlib import Path

from .errors import LoadError
from .model import check_worker
from .outcome import users_part
from .worker import Worker


def load_worker(target: str) -> Worker | type[Worker]:
    """Import the worker that `target` names: a class or an instance, `package.module:Name`.

    Raises:
        LoadError: there is no such module or name, the module fails to import, or it is no worker.
    """
    module_name, _, name = target.partition(":")
    if not module_name or not name:
        raise LoadError(f"the worker must be given as module:Class, for example worker:MyWorker, not {target!r}")
    here = str(Path.cwd())
    if here not in sys.path and "" not in sys.path:
        sys.path.insert(0, here)
    module = _import(module_name, here)
    worker: object = module
    for part in name.split("."):
        if not hasattr(worker, part):
            raise LoadError(f"the module {module_name} has no {name}{_suggestion(module)}")
        worker = getattr(worker, part)
    check_worker(worker)
    return worker  # type: ignore[return-value]  # check_worker has seen to it


def _import(module_name: str, here: str) -> object:
    try:
        return importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name and (module_name == error.name or module_name.startswith(f"{error.name}.")):
            raise LoadError(f"there is no module {error.name} in {here} or on the Python path") from None
        missing = f"the module {module_name} imports {error.name}, which is not installed"
        raise LoadError(f"{missing}: {_mend(here)}") from None
    except Exception as error:  # noqa: BLE001 - a module may raise anything
        traceback.print_exception(type(error), error, users_part(error.__traceback__))
        raise LoadError(f"the module {module_name} failed to import: {type(error).__name__}: {error}") from None


def _mend(here: str) -> str:
    listed = Path(here, "requirements.txt").exists() and not Path(here, "pyproject.toml").exists()
    return f"add its package to {'requirements.txt' if listed else 'dependencies in pyproject.toml'}"


def _suggestion(module: object) -> str:
    names = []
    for name, value in vars(module).items():
        try:
            check_worker(value)
        except LoadError:
            continue
        names.append(name)
    return f"; its workers are: {', '.join(names)}" if names else "; it defines no worker"
