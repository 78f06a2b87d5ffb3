"""The public verbs. Everything here is re-exported by the package."""

from __future__ import annotations

from n2v_scale.api.judging import diagnose, estimate_error, evaluate, evaluate_pair, report
from n2v_scale.api.models import export_model, train
from n2v_scale.api.volumes import (
    baseline,
    forecast,
    import_volume,
    make_pyramid,
    plan_prediction,
    predict,
    repair,
    verify,
)
from n2v_scale.cluster_settings import ClusterSettings, read_cluster
from n2v_scale.costs import Forecast
from n2v_scale.diagnosis import Diagnosis
from n2v_scale.evaluation import Evaluation
from n2v_scale.execution import Summary
from n2v_scale.io.open import open_volume
from n2v_scale.io.volume import Volume
from n2v_scale.lazy import denoise
from n2v_scale.model import Model, load_model
from n2v_scale.pair_evaluation import PairEvaluation
from n2v_scale.plan import Plan
from n2v_scale.reporting import ReportSummary
from n2v_scale.self_evaluation import SelfEvaluation
from n2v_scale.verification import Verification

__all__ = [
    "ClusterSettings",
    "Diagnosis",
    "Evaluation",
    "Forecast",
    "Model",
    "PairEvaluation",
    "Plan",
    "ReportSummary",
    "SelfEvaluation",
    "Summary",
    "Verification",
    "Volume",
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
    "read_cluster",
    "repair",
    "report",
    "train",
    "verify",
]
