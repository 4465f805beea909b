"""What is computed: an architecture, and the operator table that is all the physics knows of it."""

from twofold.model.architecture import Model
from twofold.model.operators import (
    Operator,
    Size,
    forward_flop,
    inference_flop_per_token,
    num_parameters,
    operator_table,
    training_flop_per_token,
)

__all__ = [
    "Model",
    "Operator",
    "Size",
    "forward_flop",
    "inference_flop_per_token",
    "num_parameters",
    "operator_table",
    "training_flop_per_token",
]
