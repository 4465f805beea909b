"""What is computed: an architecture, and the operator table that is all the physics knows of it."""

from twofold.model.architecture import Experts, LatentAttention, Model, Tower
from twofold.model.description import describe_model
from twofold.model.embedded import embedded_lack
from twofold.model.operators import (
    active_parameters,
    inference_flop_per_token,
    non_embedding_parameters,
    num_parameters,
    operator_table,
    training_flop_per_token,
)
from twofold.model.table import (
    Operator,
    Size,
    attended_keys,
    flop_factor,
    forward_flop,
    weight_copies,
)

__all__ = [
    "Experts",
    "LatentAttention",
    "Model",
    "Operator",
    "Size",
    "Tower",
    "active_parameters",
    "attended_keys",
    "describe_model",
    "embedded_lack",
    "flop_factor",
    "forward_flop",
    "inference_flop_per_token",
    "non_embedding_parameters",
    "num_parameters",
    "operator_table",
    "training_flop_per_token",
    "weight_copies",
]
