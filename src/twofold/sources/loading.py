"""A user's function by `module:function`: imported only because the user named it."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from twofold.errors import InputError


def user_function(target: str, *, at: str) -> Callable[..., Any]:
    """The function that `module:function` names, the working folder being on the path.

    Importing runs the module's code: the caller has said so to the user.
    """
    module_name, colon, name = target.rpartition(":")
    if not colon or not module_name or not name:
        raise InputError(
            f"'{target}' is not module:function",
            at=at,
            help="name a function of a module that Python can import, as my_package.my_model:build",
        )
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        own = error.name is not None and (module_name + ".").startswith(error.name + ".")
        raise InputError(
            f"there is no module '{module_name}'" if own else f"it needs the module '{error.name}'",
            at=at,
            help="run in the folder that holds it, or put it on PYTHONPATH"
            if own
            else f"install '{error.name}' in the environment that runs twofold",
        ) from error
    except Exception as error:
        raise InputError(
            f"importing '{module_name}' raised {type(error).__name__}: {error}",
            at=at,
            help="correct the module",
        ) from error
    function = getattr(module, name, None)
    if not callable(function):
        found = [word for word, value in vars(module).items() if callable(value)]
        raise InputError(
            f"the module '{module_name}' has no function '{name}'",
            at=at,
            help="it has " + (", ".join(found[:12]) or "none"),
        )
    return function  # type: ignore[no-any-return]
