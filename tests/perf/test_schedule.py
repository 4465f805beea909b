from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from twofold.perf import schedule
from twofold.perf.schedule import CODES

names = st.sampled_from(list(CODES))
stages = st.integers(1, 64).map(float)
micros = st.integers(1, 512).map(float)
seconds = st.floats(1e-4, 10.0)


def bubble(name, p, m, v=1.0, f=1.0, b=2.0, w=1.0) -> float:
    return float(
        schedule.bubble_s(
            CODES[name],
            stages=p,
            micro_batches=m,
            virtual=v,
            forward_s=f,
            backward_s=b,
            weight_s=w,
        )
    )


def flight(name, p, m, v=1.0, stage=0.0) -> float:
    return float(schedule.in_flight(CODES[name], stages=p, micro_batches=m, virtual=v, stage=stage))


@settings(deadline=None)
@given(names, micros, seconds)
def test_one_stage_has_no_pipeline(name, m, f) -> None:
    assert bubble(name, 1.0, m, f=f) == 0.0
    assert schedule.messages(CODES[name], 1.0, m, 1.0) == 0.0


def test_published_bubbles() -> None:
    """Narayanan et al. 2021, section 2.2: fraction (p-1)/m, a v-th of it interleaved."""
    p, m, f, b = 8.0, 64.0, 1.0, 2.0
    for name in ("gpipe", "1f1b"):
        assert bubble(name, p, m) / (m * (f + b)) == pytest.approx((p - 1) / m)
    assert bubble("interleaved", p, m, v=4.0) == pytest.approx(bubble("1f1b", p, m) / 4)


def test_zb_h1_leaves_a_third_of_the_bubble_where_the_three_parts_are_equal() -> None:
    """Qi et al. 2023, arXiv 2401.10241, section 2.1."""
    assert bubble("zb-h1", 8.0, 64.0) == pytest.approx(bubble("1f1b", 8.0, 64.0) / 3)


def test_zb_h1_with_one_micro_batch_is_its_critical_path() -> None:
    p, f, b, w = 4.0, 1.0, 2.0, 1.0
    path = p * f + p * (b - w) + w
    assert bubble("zb-h1", p, 1.0) == pytest.approx(path - (f + b))


def simulated_1f1b_s(p: int, m: int, f: float, b: float) -> float:
    """Event times of 1F1B, stage by stage in its own order."""
    done: dict[tuple[str, int, int], float] = {}
    orders = []
    for s in range(p):
        warm = min(m, p - s - 1)
        order = [("f", i) for i in range(warm)]
        for i in range(m - warm):
            order += [("f", warm + i), ("b", i)]
        order += [("b", i) for i in range(m - warm, m)]
        orders.append(order)
    clock, heads = [0.0] * p, [0] * p
    while any(heads[s] < len(orders[s]) for s in range(p)):
        for s in range(p):
            if heads[s] == len(orders[s]):
                continue
            kind, i = orders[s][heads[s]]
            before = ("f", s - 1, i) if kind == "f" else ("b", s + 1, i)
            first = (kind == "f" and s == 0) or (kind == "b" and s == p - 1)
            if not first and before not in done:
                continue
            clock[s] = max(clock[s], 0.0 if first else done[before]) + (f if kind == "f" else b)
            done[(kind, s, i)] = clock[s]
            heads[s] += 1
    return max(clock)


@settings(deadline=None)
@given(st.integers(1, 6), st.integers(1, 12), seconds, seconds)
def test_1f1b_takes_what_a_simulation_of_it_takes(p, m, f, b) -> None:
    formula = m * (f + b) + bubble("1f1b", float(p), float(m), f=f, b=b)
    assert simulated_1f1b_s(p, m, f, b) == pytest.approx(formula)


@settings(deadline=None)
@given(names, stages, micros, seconds, seconds, st.floats(0.0, 1.0))
def test_no_schedule_idles_more_than_gpipe_or_less_than_nothing(name, p, m, f, b, share) -> None:
    weight_s = share * b
    other = bubble(name, p, m, v=2.0, f=f, b=b, w=weight_s)
    assert 0.0 <= other <= bubble("gpipe", p, m, f=f, b=b, w=weight_s) * (1 + 1e-12)


@settings(deadline=None)
@given(names, stages, micros, st.integers(1, 8).map(float))
def test_in_flight_is_at_least_one_chunk_and_at_most_all(name, p, m, v) -> None:
    v = v if name == "interleaved" else 1.0
    first, last = flight(name, p, m, v), flight(name, p, m, v, stage=p - 1.0)
    assert 1.0 / v <= last <= first <= m


def test_published_activation_memory_of_the_first_stage() -> None:
    """Korthikanti et al. 2023, section 4.2.3: L layers' worth, and 1 + (p-1)/(pv) interleaved."""
    p, v = 8.0, 4.0
    assert flight("1f1b", p, 64.0) == p
    assert flight("interleaved", p, 64.0, v) == pytest.approx(p * (1 + (p - 1) / (p * v)))
    assert flight("zb-h1", p, 64.0) == p
    assert flight("gpipe", p, 64.0) == 64.0


def test_messages_go_on_and_back_for_every_chunk() -> None:
    assert schedule.messages(CODES["1f1b"], 4.0, 10.0, 1.0) == 20.0
    assert schedule.messages(CODES["interleaved"], 4.0, 8.0, 3.0) == 48.0


def test_mixed_columns_agree_with_one_row_calls() -> None:
    code = np.arange(4)
    p, m, v = np.array([4.0, 4, 4, 8]), np.array([8.0, 2, 16, 16]), np.array([1.0, 1, 2, 1])
    arguments = {"stages": p, "micro_batches": m, "virtual": v}
    times = {"forward_s": 1.0, "backward_s": 2.5, "weight_s": 1.1}
    table = schedule.bubble_s(code, **arguments, **times)
    kept = schedule.in_flight(code, **arguments)
    for row, name in enumerate(CODES):
        one = bubble(name, p[row], m[row], v[row], 1.0, 2.5, 1.1)
        assert table[row] == pytest.approx(one, rel=1e-12)
        assert kept[row] == pytest.approx(flight(name, p[row], m[row], v[row]), rel=1e-12)
