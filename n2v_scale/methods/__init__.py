"""How a network is trained and applied: Noise2Void and its family."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any, cast

from pydantic import TypeAdapter, ValidationError

from n2v_scale.errors import ModelError
from n2v_scale.methods.base import Method
from n2v_scale.methods.linear import Linear
from n2v_scale.methods.n2s import Noise2Self
from n2v_scale.methods.n2v import Noise2Void
from n2v_scale.methods.paired import Paired
from n2v_scale.methods.ssdn import BlindSpot

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

METHODS: dict[str, type[Method]] = {
    "linear": Linear,
    "n2n": Paired,
    "n2s": Noise2Self,
    "n2v": Noise2Void,
    "n2v2": Noise2Void,
    "ssdn": BlindSpot,
    "structn2v": Noise2Void,
    "supervised": Paired,
}


def method_from_dict(name: str, config: dict[str, Any]) -> Method:
    """A method from its name and :func:`method_to_dict`.

    Raises
    ------
    ModelError
        When the name or the configuration is unknown to this version.
    """
    if name not in METHODS:
        raise ModelError(
            f"the model's method is {name!r}, and this version knows {', '.join(METHODS)}"
        )
    try:
        return TypeAdapter(METHODS[name]).validate_python(config)
    except ValidationError as error:
        raise ModelError(f"the model's method configuration is not valid: {error}") from None


def method_to_dict(method: Method) -> dict[str, Any]:
    """A method's configuration as JSON."""
    return asdict(cast("DataclassInstance", method))
