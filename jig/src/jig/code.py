"""What a project's Python files say, read without running them."""

from __future__ import annotations

import ast
import re
import sys
from pathlib import Path

from jig.bundle.stated import stated_requirements
from jig.config.model import Config
from jig.errors import DeployError
from jig.image.prepare import has_own_dockerfile

DEFAULT_FILE = "app.py"
DEFAULT_COMMAND = ("python", DEFAULT_FILE)
SDK = "sprocket"
PACKAGE_NAME = re.compile(rf"{SDK}(?![a-z0-9._-])")
DYNAMIC = frozenset({"__getattr__", "globals", "setattr", "exec", "vars"})  # with these a module may hold any name


def check_code(config: Config) -> None:
    """Find what cannot start before time goes into packing it; what is not sure is left to the replica.

    Raises:
        DeployError: the worker's module is no Python or has no such class, or the default command's file is not there.
    """
    if config.deploy.command or config.image.run or has_own_dockerfile(config):
        return
    file, folder = config.path.name, config.directory
    if config.worker is None:
        if config.command == DEFAULT_COMMAND and not (folder / DEFAULT_FILE).exists():
            message = f"{file} names no worker, and {DEFAULT_FILE}, which runs without one, is not in {folder}."
            raise DeployError(message, hint=f'Write worker = "module:Class" in {file}, or cmd under image.')
        return
    module, _, name = config.worker.partition(":")
    path = module_file(folder, module)
    if path is None:
        if may_be_elsewhere(config, module):
            return
        nearby = sorted(each.stem for each in folder.glob("*.py") if worker_classes(each))
        message = f'{file}: worker = "{config.worker}" names the module {module}, which is not in {folder}.'
        raise DeployError(message, hint=f"Modules with a worker: {', '.join(nearby)}." if nearby else None)
    shown = path.relative_to(folder).as_posix()
    if error := syntax_error(config, shown):
        raise DeployError(error)
    tree = parsed(path)
    if tree is None or may_hold(tree, name):
        return
    message = f'{file}: worker = "{config.worker}" names {name}, which is not in {shown}.'
    classes = worker_classes(path)
    raise DeployError(message, hint=f"Its workers are: {', '.join(classes)}." if classes else None)


def syntax_error(config: Config, name: str) -> str | None:
    """Where and why a file of the project is no Python; None where it is, or only the worker's Python can tell."""
    if config.image.python_version.split(".")[:2] != [str(part) for part in sys.version_info[:2]]:
        return None
    try:
        compile((config.directory / name).read_bytes(), name, "exec", dont_inherit=True)
    except (SyntaxError, ValueError) as error:
        line = getattr(error, "lineno", None) or 1
        code = (getattr(error, "text", None) or "").strip()
        return f"{name}:{line}: {getattr(error, 'msg', error)}" + (f"\n  {code}" if code else "")
    return None


def module_file(folder: Path, module: str) -> Path | None:
    """The file of a module that is a part of the project; None where it is none."""
    path = folder.joinpath(*module.split("."))
    candidates = (path.with_name(f"{path.name}.py"), path / "__init__.py")
    return next((each for each in candidates if each.is_file()), None)


def may_be_elsewhere(config: Config, module: str) -> bool:
    """True where a module that is no file of the project may be found all the same, as in a package it requires."""
    folder, image = config.directory, config.image
    variables = {*image.environment, *(each.name for each in config.deploy.environment_variables)}
    others = ("uv.lock", "requirements.txt", "src")
    if "PYTHONPATH" in variables or any((folder / name).exists() for name in others):
        return True
    if any(folder.glob(f"{module.replace('.', '/')}.*")):
        return True  # such as a compiled one
    stated = stated_requirements(folder, image.extras, image.groups)
    return any(PACKAGE_NAME.match(line.strip().lower()) is None for line in stated)


def parsed(path: Path) -> ast.Module | None:
    """The file's syntax tree; None where it cannot be read by this Python."""
    try:
        return ast.parse(path.read_bytes())
    except (OSError, SyntaxError, ValueError, RecursionError):
        return None


def may_hold(tree: ast.Module, name: str) -> bool:
    """True unless nothing in the module can give it that name."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            names = {node.name}
        elif isinstance(node, ast.alias):
            names = {node.asname or node.name.partition(".")[0]}
        elif isinstance(node, ast.Name):
            names = {node.id}
        else:
            continue
        if names & {name, "*", *DYNAMIC}:
            return True
    return False


def worker_classes(path: Path) -> list[str]:
    """The classes at a file's top level that derive from one of sprocket's by name."""
    tree = parsed(path)
    if tree is None:
        return []
    modules, bases = set(), set()
    for node in tree.body:
        if isinstance(node, ast.Import):
            modules |= {alias.asname or alias.name for alias in node.names if alias.name == SDK}
        elif isinstance(node, ast.ImportFrom) and node.module == SDK:
            bases |= {alias.asname or alias.name for alias in node.names}
    bases |= {f"{module}.{name}" for module in modules for name in ("Sprocket", "AsyncSprocket", "SprocketWorker")}
    classes = [node for node in tree.body if isinstance(node, ast.ClassDef)]
    return [each.name for each in classes if any(ast.unparse(base) in bases for base in each.bases)]
