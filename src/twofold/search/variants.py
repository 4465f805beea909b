"""Other models in place of the one asked for, each trained to the same predicted loss."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from twofold.errors import InputError, NegativeAnswer
from twofold.fleet import Fleet
from twofold.model import Model, active_parameters, num_parameters
from twofold.perf.scaling_laws import Shape, decades_outside, expansion, tokens_at_equal_loss
from twofold.perf.speeds import Efficiencies
from twofold.search.answers import PoolAnswer, Wish, answer_fleets
from twofold.search.options import Option
from twofold.search.ratio_interval import Interval
from twofold.workload import Train


@dataclass(frozen=True, slots=True, kw_only=True)
class Variant:
    """A model with the tokens it needs for the reference's loss, and its answer on the fleet.

    `refusal` says why there is no answer: the loss is out of reach, or nothing fits.
    """

    model: Model
    tokens: Interval
    decades_outside: float
    workload: Train | None = None
    answer: PoolAnswer | None = None
    refusal: str | None = None

    @property
    def best(self) -> Option | None:
        return None if self.answer is None else self.answer.best[0]

    @property
    def time_s(self) -> Interval | None:
        """Of the whole run: the doubts about step time and about tokens in quadrature."""
        best = self.best
        if best is None:
            return None
        value = best.time_s.value
        low = math.hypot(
            math.log(value / best.time_s.low), math.log(self.tokens.value / self.tokens.low)
        )
        high = math.hypot(
            math.log(best.time_s.high / value), math.log(self.tokens.high / self.tokens.value)
        )
        return Interval(value=value, low=value * math.exp(-low), high=value * math.exp(high))

    def as_mapping(self) -> dict[str, Any]:
        time_s = self.time_s
        return {
            "model": self.model.name,
            "parameters": num_parameters(self.model),
            "active_parameters": active_parameters(self.model),
            "tokens": self.tokens.as_mapping(),
            "decades_outside_law": self.decades_outside
            if math.isfinite(self.tokens.value)
            else None,
            "time_s": None if time_s is None else time_s.as_mapping(),
            "answer": None if self.answer is None else self.answer.as_mapping(),
            "refusal": self.refusal,
        }


def vary_models(
    reference: Model,
    workload: Train,
    others: Sequence[Model],
    fleet: Fleet,
    wish: Wish,
    date: str,
    fit: Efficiencies,
) -> tuple[Variant, ...]:
    """The reference, then the others, each with its best plan for equal predicted loss.

    InputError for a model of which the scaling laws say nothing.
    """
    shape = law_shape(reference)
    variants = []
    for model in (reference, *others):
        other = law_shape(model)
        value, low, high = tokens_at_equal_loss(shape, float(workload.tokens), other)
        tokens = Interval(value=value, low=low, high=high)
        outside = decades_outside(other, value) if math.isfinite(value) else math.inf
        variants.append(_variant(model, tokens, outside, workload, fleet, wish, date, fit))
    return tuple(variants)


def law_shape(model: Model) -> Shape:
    """A model as the scaling laws see it. InputError where they do not apply."""
    if model.operators or not model.causal or model.entry is not None:
        raise InputError(
            f"no scaling law is known for '{model.name}', which is no decoder of language",
            at="--vary",
            help="compare decoders",
        )
    experts = 1.0
    if model.experts is not None:
        shared = model.experts.shared_ffn / model.experts.ffn
        experts = float(expansion(model.experts.count, model.experts.top_k, shared))
    return Shape(active_parameters=float(active_parameters(model)), experts=experts)


def _variant(
    model: Model,
    tokens: Interval,
    outside: float,
    workload: Train,
    fleet: Fleet,
    wish: Wish,
    date: str,
    fit: Efficiencies,
) -> Variant:
    if not math.isfinite(tokens.value):
        return Variant(
            model=model,
            tokens=tokens,
            decades_outside=outside,
            refusal="never reaches that loss, by the scaling law",
        )
    own = replace(workload, tokens=max(round(tokens.value), workload.tokens_per_step))
    try:
        answer = answer_fleets(model, own, [fleet], wish, date, fit)[0]
    except NegativeAnswer as refusal:
        return Variant(model=model, tokens=tokens, decades_outside=outside, refusal=refusal.what)
    return Variant(model=model, tokens=tokens, decades_outside=outside, workload=own, answer=answer)
