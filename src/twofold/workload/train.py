"""`Train` and its `Recipe`: everything that decides the learning trajectory."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from twofold.errors import InputError

Optimizer = Literal["adamw", "muon"]
Schedule = Literal["cosine", "linear", "trapezoid"]
Initialisation = Literal["gpt2", "zero-residual"]
UNSPECIFIED = "unspecified"
"""The text of a workload that is planned and not run."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """How the model learns. Two runs with equal recipes, data and seed do the same mathematics.

    `learning_rate` is that of the hidden matrices. Under Muon the embeddings, head and vectors
    are left to AdamW at `adam_learning_rate`, and `orthogonal_steps` counts its Newton-Schulz
    iterations. Warm-up and decay are fractions of the run.
    `global_batch` counts sequences per optimizer step.

    Under local updates the common weights move by SGD with Nesterov momentum, at
    `outer_learning_rate` and `outer_momentum` (DiLoCo's, arXiv 2311.08105, section 3).
    """

    optimizer: Optimizer = "adamw"
    learning_rate: float
    adam_learning_rate: float | None = None
    beta1: float = 0.9
    beta2: float = 0.95
    weight_decay: float = 0.1
    momentum: float = 0.95
    orthogonal_steps: int = 5
    gradient_clip: float = 1.0
    schedule: Schedule = "cosine"
    warmup_fraction: float = 0.05
    decay_fraction: float = 0.4
    final_learning_rate_fraction: float = 0.1
    global_batch: int
    initialisation: Initialisation = "gpt2"
    outer_learning_rate: float = 0.7
    outer_momentum: float = 0.9

    def __post_init__(self) -> None:
        if not self.learning_rate > 0:
            _refuse("learning_rate", f"it is {self.learning_rate}", "use a positive number")
        if self.global_batch < 1:
            _refuse("global_batch", f"it is {self.global_batch}", "use at least 1 sequence")
        if self.optimizer == "muon" and self.adam_learning_rate is None:
            _refuse(
                "adam_learning_rate",
                "Muon trains only the hidden matrices, and the rate of the rest is not given",
                "set adam_learning_rate, for example 0.005",
            )
        if self.orthogonal_steps < 1:
            _refuse("orthogonal_steps", f"it is {self.orthogonal_steps}", "use at least 1")
        if not self.outer_learning_rate > 0:
            _refuse(
                "outer_learning_rate", f"it is {self.outer_learning_rate}", "use a positive number"
            )
        if not 0 <= self.outer_momentum < 1:
            _refuse("outer_momentum", f"it is {self.outer_momentum}", "use 0 to below 1")
        for field in ("warmup_fraction", "decay_fraction", "final_learning_rate_fraction"):
            if not 0 <= getattr(self, field) <= 1:
                _refuse(field, f"it is {getattr(self, field)}", "use a fraction from 0 to 1")


DEFAULT_RECIPE = Recipe(learning_rate=2e-3, global_batch=8)
"""Of who states none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Train:
    """Training on text for a fixed number of tokens.

    `text` is `stdlib` (Python's own library, which every machine has), or a file or folder;
    `unspecified` where only planning is asked for.
    `text_hash` is filled in when the text is prepared; a plan that carries it runs only on
    that very text. `seq_len` is in tokens; a network whose tokens are whole samples (pictures)
    has sequences of 1.
    """

    text: str = UNSPECIFIED
    tokens: int
    seq_len: int
    recipe: Recipe
    tokeniser: Literal["bytes"] = "bytes"
    text_hash: str | None = None

    def __post_init__(self) -> None:
        if self.seq_len < 1:
            raise InputError(
                f"seq_len is {self.seq_len}", at="workload, seq_len", help="use at least 1 token"
            )
        if self.tokens < self.tokens_per_step:
            raise InputError(
                f"{self.tokens} tokens are less than one step of {self.tokens_per_step} "
                f"({self.recipe.global_batch} sequences of {self.seq_len})",
                at="workload, tokens",
                help="train for more tokens, or lower global_batch or seq_len",
            )

    @property
    def tokens_per_step(self) -> int:
        return self.recipe.global_batch * self.seq_len

    @property
    def num_steps(self) -> int:
        return self.tokens // self.tokens_per_step


def _refuse(field: str, what: str, help: str) -> None:
    raise InputError(what, at=f"recipe, {field}", help=help)
