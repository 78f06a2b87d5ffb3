"""The packages of the extra ``export``, which are not installed unless asked for."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from n2v_scale.errors import ConfigError

INSTALL = "pip install 'n2v-scale[export]'"


def of_extra(module: str, purpose: str) -> Any:
    """A module of the extra.

    Raises
    ------
    ConfigError
        When it is not installed, or does not work; the message says how to install it.
    """
    package = "bioimageio.spec" if module.startswith("bioimageio.") else module
    try:
        return import_module(module)
    except ModuleNotFoundError as error:
        if error.name is not None and not module.startswith(error.name):
            raise ConfigError(
                f"{purpose} needs {package}, which needs {error.name}: {INSTALL}"
            ) from None
        raise ConfigError(f"{purpose} needs {package}: {INSTALL}") from None
    except (ImportError, AttributeError, TypeError) as error:
        raise ConfigError(
            f"{purpose} needs {package}, and the one that is installed cannot be used ({error}): "
            f"{INSTALL}"
        ) from None
