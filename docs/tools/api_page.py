"""The page of the Python API, from the names that the package gives out."""

from __future__ import annotations

import importlib
import inspect

import n2v_scale

VERBS = {
    "Open": ("open_volume", "load_model"),
    "Denoise": ("train", "plan_prediction", "forecast", "predict", "denoise", "import_volume"),
    "Look after an output": ("verify", "repair", "make_pyramid"),
    "Judge": ("diagnose", "evaluate", "estimate_error", "evaluate_pair", "baseline"),
}
RESULTS = (
    "n2v_scale.io.volume.Volume",
    "n2v_scale.model.Model",
    "n2v_scale.plan.Plan",
    "n2v_scale.costs.Forecast",
    "n2v_scale.execution.Summary",
    "n2v_scale.verification.Verification",
    "n2v_scale.diagnosis.Diagnosis",
    "n2v_scale.evaluation.Evaluation",
    "n2v_scale.self_evaluation.SelfEvaluation",
    "n2v_scale.pair_evaluation.PairEvaluation",
    "n2v_scale.noise.NoiseModel",
)
SETTINGS = (
    "n2v_scale.config.TrainSettings",
    "n2v_scale.config.PredictSettings",
    "n2v_scale.config.OutputSettings",
    "n2v_scale.config.CameraSettings",
    "n2v_scale.cluster_settings.ClusterSettings",
    "n2v_scale.cluster_settings.read_cluster",
)
INTRODUCTION = """# The Python API

```python
import n2v_scale
```

Everything below is made from the docstrings. Axes are in the order t, c, z, y, x. A volume is given
by its address (a path or a URL) or as what `open_volume` returns. Options of the command line have
the same names here, with `_` for `-`. What a user can do wrong raises a subclass of
`n2v_scale.N2VScaleError`, whose text says what was seen, what the limit is and what to do.

"""


def api_page() -> str:
    """Markdown with a line for mkdocstrings for every public name."""
    parts = [INTRODUCTION]
    placed = {name for names in VERBS.values() for name in names}
    rest = tuple(name for name in n2v_scale.__all__ if name not in placed | {"__version__"})
    verbs = VERBS | {"More": tuple(name for name in rest if name != "N2VScaleError")}
    for title, names in verbs.items():
        if names:
            parts += [f"## {title}\n", *(_entry(home(name)) for name in names)]
    parts += ["## What they return\n", *map(_entry, RESULTS)]
    parts += ["## Settings\n", *map(_entry, SETTINGS)]
    parts += ["## Errors\n", "::: n2v_scale.errors\n    options: {show_root_heading: false}\n"]
    return "\n".join(parts)


def home(name: str) -> str:
    """Where a public name is defined: ``train`` is ``n2v_scale.api.train``."""
    found = getattr(importlib.import_module("n2v_scale"), name)
    module = inspect.getmodule(found)
    return f"{module.__name__}.{name}" if module else f"n2v_scale.api.{name}"


def _entry(path: str) -> str:
    return f"::: {path}\n"
