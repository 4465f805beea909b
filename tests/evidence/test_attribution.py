import math
from itertools import permutations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from twofold.evidence.attribution import (
    Coalition,
    coalitions,
    factors,
    interaction,
    shapley,
    shapley_over_orders,
)

CAUSES = ("a", "b", "c", "d")


@st.composite
def games(draw: st.DrawFn, *, least: int = 1) -> dict[Coalition, float]:
    causes = CAUSES[: draw(st.integers(least, 4))]
    values = st.floats(-2.0, 2.0)
    return {c: (draw(values) if c else 0.0) for c in coalitions(causes)}


def whole(values: dict[Coalition, float]) -> Coalition:
    return max(values, key=len)


@given(games())
def test_shares_add_up_to_the_whole(values: dict[Coalition, float]) -> None:
    assert math.fsum(shapley(values).values()) == pytest.approx(values[whole(values)], abs=1e-9)


@given(games(least=2))
def test_causes_that_can_be_swapped_get_the_same(values: dict[Coalition, float]) -> None:
    swap = {"a": "b", "b": "a"}
    mirrored = {c: frozenset(swap.get(x, x) for x in c) for c in values}
    symmetric = {c: (values[c] + values[mirrored[c]]) / 2 for c in values}
    shares = shapley(symmetric)
    assert shares["a"] == pytest.approx(shares["b"], abs=1e-9)


@given(games(least=2))
def test_a_cause_without_effect_gets_nothing(values: dict[Coalition, float]) -> None:
    with_dummy = {c: values[c - {"a"}] for c in values}
    assert shapley(with_dummy)["a"] == pytest.approx(0.0, abs=1e-9)


@given(games(least=2), st.floats(-1, 1))
def test_shares_are_linear(values: dict[Coalition, float], scale: float) -> None:
    scaled = {c: scale * v for c, v in values.items()}
    for cause, share in shapley(values).items():
        assert shapley(scaled)[cause] == pytest.approx(scale * share, abs=1e-9)


def test_a_worked_example() -> None:
    """The glove game: one left glove (a), two right ones (b, c); a pair is worth 1."""
    values = {c: float("a" in c and len(c) > 1) for c in coalitions("abc")}
    assert shapley(values) == pytest.approx({"a": 2 / 3, "b": 1 / 6, "c": 1 / 6})


def test_every_coalition_must_be_there() -> None:
    with pytest.raises(AssertionError, match="no value"):
        shapley({frozenset(): 0.0, frozenset("ab"): 1.0})


def test_factors_multiply_and_bracket_the_order() -> None:
    blocks = [
        {
            frozenset[str](): 0.0,
            frozenset(("maths",)): math.log(1.7 + shift),
            frozenset(("recipe",)): math.log(2.5),
            frozenset(("maths", "recipe")): math.log(4.0 + shift),
        }
        for shift in (-0.02, 0.0, 0.02)
    ]
    maths, recipe = factors(blocks)
    total = math.exp(sum(math.log(4.0 + shift) for shift in (-0.02, 0.0, 0.02)) / 3)
    assert (maths.name, recipe.name) == ("maths", "recipe")
    assert maths.value * recipe.value == pytest.approx(total, rel=1e-12)
    assert recipe.first_in == pytest.approx(2.5)
    assert min(maths.first_in, maths.last_in) < maths.value < max(maths.first_in, maths.last_in)
    assert maths.low is not None
    assert maths.high is not None
    assert maths.low < maths.value < maths.high
    assert interaction(blocks[1], "maths", "recipe") == pytest.approx(math.log(4 / (1.7 * 2.5)))


def walked(values: dict[Coalition, float], causes: str) -> tuple[dict[str, float], int]:
    """The definition: every order walked, those through a coalition without a value dropped."""
    shares, num_orders = dict.fromkeys(causes, 0.0), 0
    for order in permutations(causes):
        prefixes = [frozenset(order[:n]) for n in range(len(order) + 1)]
        if all(prefix in values for prefix in prefixes):
            num_orders += 1
            for cause, before, after in zip(order, prefixes, prefixes[1:], strict=False):
                shares[cause] += values[after] - values[before]
    return {cause: share / max(num_orders, 1) for cause, share in shares.items()}, num_orders


@given(games(least=4), st.sets(st.integers(1, 14), max_size=8))
def test_admissible_orders_are_counted_as_if_walked(
    values: dict[Coalition, float], missing: set[int]
) -> None:
    order = coalitions("abcd")
    left = {c: v for c, v in values.items() if order.index(c) not in missing}
    expected, num_orders = walked(left, "abcd")
    got = shapley_over_orders(left, "abcd")
    assert (got.num_orders, got.num_possible) == (num_orders, 24)
    if num_orders:
        assert got.shares == pytest.approx(expected, abs=1e-9)
        assert math.fsum(got.shares.values()) == pytest.approx(left[order[-1]], abs=1e-9)
    else:
        assert got.shares == {}


def test_no_causes_have_one_order() -> None:
    assert shapley_over_orders({frozenset(): 0.0}, ()).num_orders == 1
