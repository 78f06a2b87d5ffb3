"""Self-supervised denoising of volumes that do not fit anywhere.

>>> import n2v_scale
>>> "predict" in dir(n2v_scale)
True

The verbs are loaded when they are first used, so importing the package costs nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from n2v_scale._version import __version__
from n2v_scale.errors import N2VScaleError

if TYPE_CHECKING:
    from n2v_scale.api import (
        baseline,
        denoise,
        diagnose,
        estimate_error,
        evaluate,
        evaluate_pair,
        export_model,
        forecast,
        import_volume,
        load_model,
        make_pyramid,
        open_volume,
        plan_prediction,
        predict,
        repair,
        report,
        train,
        verify,
    )

__all__ = [
    "N2VScaleError",
    "__version__",
    "baseline",
    "denoise",
    "diagnose",
    "estimate_error",
    "evaluate",
    "evaluate_pair",
    "export_model",
    "forecast",
    "import_volume",
    "load_model",
    "make_pyramid",
    "open_volume",
    "plan_prediction",
    "predict",
    "repair",
    "report",
    "train",
    "verify",
]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module("n2v_scale.api"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
