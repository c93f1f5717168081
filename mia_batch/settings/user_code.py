"""Find and call a user's function named `package.module:function` or `path/to/file.py:function`."""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import os
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

from mia_batch.errors import InputError, did_you_mean, one_line

SHOWN = 10  # functions of a module, in a message


def resolve(factory: str, field: str) -> Callable[..., Any]:
    """Import the function that `factory` names.

    Args:
        factory: `package.module:function` or `path/to/file.py:function`.
        field: the configuration's field, for messages.

    Raises:
        InputError: no such module, file or function, or it is not callable.
    """
    location, _, name = factory.rpartition(":")
    if not location or not name.isidentifier():
        raise InputError(f"{field}: must be package.module:function or path/to/file.py:function, got {factory!r}")
    try:
        module = _load_file(Path(location)) if location.endswith(".py") else _load_module(location)
    except (Exception, SystemExit) as error:  # a script that ends itself must not end the job
        raise InputError(f"{field}: {location} must be importable, got {one_line(error)}") from error
    function = getattr(module, name, None)
    if function is None:
        names = _functions(module)
        there = f"it has {', '.join(names[:SHOWN])}" if names else "it has none"
        raise InputError(f"{field}: {location} has no function {name!r}; {there}{did_you_mean(name, names)}")
    if not callable(function):
        raise InputError(f"{field}: {factory} must be callable, got {type(function).__name__}")
    return function


def call(factory: str, field: str, kwargs: dict[str, Any], optional: dict[str, Any] | None = None) -> Any:
    """Call the function that `factory` names.

    Args:
        factory: as for `resolve`.
        field: as for `resolve`.
        kwargs: passed as they are.
        optional: passed where the function has a parameter of that name and `kwargs` does not give it.

    Raises:
        InputError: as `resolve`, or the call raised.
    """
    function = resolve(factory, field)
    extra = {key: value for key, value in (optional or {}).items() if key not in kwargs and accepts(function, key)}
    try:
        return function(**kwargs, **extra)
    except InputError:
        raise
    except (Exception, SystemExit) as error:
        raise InputError(f"{field}: {factory} called with {_shown(kwargs | extra)} raised {one_line(error)}") from error


def _shown(kwargs: dict[str, Any]) -> str:
    named = (f"{name}={str(value) if isinstance(value, Path) else value!r}" for name, value in kwargs.items())
    return ", ".join(named) or "nothing"


def accepts(function: Callable[..., Any], name: str) -> bool:
    """Whether `function` has a parameter `name` that can be given by keyword (`**kwargs` alone does not count)."""
    try:
        parameter = inspect.signature(function).parameters.get(name)
    except (TypeError, ValueError):  # a built-in without a signature
        return False
    return parameter is not None and parameter.kind in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY)


def _load_module(name: str) -> ModuleType:
    _extend_path(os.getcwd())  # an installed command does not see the current folder otherwise
    return importlib.import_module(name)


def _load_file(path: Path) -> ModuleType:
    path = path.absolute()
    name = f"mia_batch_user_{path.stem}_{abs(hash(str(path))):x}"
    if name in sys.modules:
        return sys.modules[name]
    if not path.is_file():
        raise FileNotFoundError(f"no such file {path}")
    _extend_path(str(path.parent))  # its siblings can be imported
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


def _extend_path(folder: str) -> None:
    if folder not in sys.path:
        sys.path.append(folder)  # last, so that nothing installed is shadowed


def _functions(module: ModuleType) -> list[str]:
    return [
        name
        for name, value in vars(module).items()
        if inspect.isfunction(value) and not name.startswith("_") and value.__module__ == module.__name__
    ]
