from __future__ import annotations

import pytest

from tests.calibrate.rows import perfect_rows
from tests.machines import calibrated_fleet, curves_of
from twofold.calibrate import calibrate_from_rows, find_implausible
from twofold.errors import InputError
from twofold.fleet import Curves, Fleet
from twofold.perf.efficiency import find_attention, find_gemm, find_op
from twofold.perf.sockets import socket_path

HOST = {"name": "desk"}


def fit(**options: float) -> Curves:
    return curves_of(calibrate_from_rows(perfect_rows(**options), HOST, date="2026-11-24"))  # type: ignore[arg-type]


def test_exact_rows_give_their_rates_back() -> None:
    curves, truth = fit(), curves_of(calibrated_fleet())
    for op in ("linear", "orthogonalise"):
        for precision in ("fp32", "bf16"):
            for threads in (1, 2):
                found = find_gemm(curves, op, precision, threads)
                known = find_gemm(truth, op, precision, threads)
                assert found.flop_per_s.value == pytest.approx(known.flop_per_s.value, rel=0.05)
                assert found.spread < 0.02
                assert found.flop_per_s.basis == "measured"


def test_exact_rows_give_their_attention_back() -> None:
    curves, truth = fit(), curves_of(calibrated_fleet())
    for kernel in ("sdpa", "explicit"):
        found = find_attention(curves, kernel, "fp32", 2)
        known = find_attention(truth, kernel, "fp32", 2)
        assert found.forward == pytest.approx(known.forward, rel=1e-3)
        assert found.backward == pytest.approx(known.backward, rel=1e-3)


def test_noise_moves_the_rates_little_and_is_told() -> None:
    curves = fit(noise=0.08)
    truth = find_gemm(curves_of(calibrated_fleet()), "linear", "fp32", 1)
    found = find_gemm(curves, "linear", "fp32", 1)
    assert found.flop_per_s.value == pytest.approx(truth.flop_per_s.value, rel=0.15)
    assert 0.03 < found.spread < 0.15


def test_operations_are_kept_as_measured_with_backward_apart() -> None:
    curves, truth = fit(), curves_of(calibrated_fleet())
    found, known = (find_op(c, "gelu", "fp32", 1) for c in (curves, truth))
    assert found.sizes == known.sizes
    assert found.forward_s == pytest.approx(known.forward_s)
    assert found.backward_s == pytest.approx(known.backward_s)
    assert find_op(curves, "adamw_fused", "fp32", 1).backward_s == ()


def test_figures_of_the_machine() -> None:
    fleet = calibrate_from_rows(perfect_rows(), HOST, date="2026-11-24")
    accelerator = fleet.pools[0].node.accelerator
    assert fleet.name == "desk"
    assert accelerator.kind == "cpu"
    assert accelerator.threads == 2
    assert accelerator.memory.usable_bytes.value == pytest.approx(7.2e9)
    assert accelerator.memory.bandwidth_bytes_per_s is not None
    assert accelerator.memory.bandwidth_bytes_per_s.value == pytest.approx(2e10)
    assert accelerator.flop_per_s["fp32"].value == pytest.approx(1.44e11, rel=0.02)
    assert accelerator.power_max_w is not None
    assert accelerator.power_max_w.basis == "derived"
    link = fleet.pools[0].node.links[0]
    assert link.latency_s.value == pytest.approx(1e-4)
    assert link.bandwidth_bytes_per_s.value == pytest.approx(1e9)
    path = socket_path(fleet.pools[0].node)
    assert path.message_s == pytest.approx(0.5e-4, rel=0.03)
    assert path.bytes_per_s == pytest.approx(1e9, rel=0.03)
    curves = curves_of(fleet)
    assert curves.scalars["start_s"].value == 3.0
    assert curves.scalars["compiler_available"].value == 1.0
    assert 1.0 <= curves.scalars["heap_factor_none"].value < 4.0
    assert curves.conditions["disturbed_fraction"] == 0.0


def test_the_roof_is_never_below_a_curve_or_a_row() -> None:
    fleet = calibrate_from_rows(perfect_rows(noise=0.1), HOST)
    roof = fleet.pools[0].node.accelerator.flop_per_s["fp32"].value
    for row in perfect_rows(noise=0.1):
        if row["kind"] == "linear" and row["precision"] == "fp32":
            assert 4 * row["rows"] * row["inputs"] * row["outputs"] / row["forward_s"] <= roof


def test_a_precision_seen_at_two_shapes_only_still_has_a_rate() -> None:
    """A hopeless precision is measured at a few small shapes."""
    rows = [
        row
        for row in perfect_rows()
        if not (row["kind"] == "linear" and row["precision"] == "bf16" and row["rows"] > 512)
        or row.get("inputs") == 64
    ]
    two = [r for r in rows if r["kind"] != "linear" or r["precision"] != "bf16"]
    two += [r for r in rows if r["kind"] == "linear" and r["precision"] == "bf16"][:2]
    curve = find_gemm(curves_of(calibrate_from_rows(two, HOST)), "linear", "bf16", 1)
    assert (curve.m_half, curve.n_half, curve.k_half) == (0.0, 0.0, 0.0)
    assert 0.5e11 < curve.flop_per_s.value < 2.5e11


def test_the_middle_round_counts_and_disturbed_ones_do_not() -> None:
    clean = [row for row in perfect_rows() if row["kind"] == "op"]
    slower = [{**r, "forward_s": 1.2 * r["forward_s"]} for r in clean]
    disturbed = [{**r, "forward_s": 9 * r["forward_s"], "clean_fraction": 0.1} for r in clean]
    curves = curves_of(calibrate_from_rows(perfect_rows() + slower + disturbed, HOST))
    known = find_op(curves_of(calibrated_fleet()), "add", "fp32", 1)
    found = find_op(curves, "add", "fp32", 1)
    assert found.forward_s == pytest.approx([1.1 * s for s in known.forward_s])


def test_times_that_fall_with_size_are_straightened() -> None:
    rows = perfect_rows()
    for row in rows:
        if row["kind"] == "op" and row["op"] == "add" and row["elements"] == 1e6:
            row["forward_s"] = 1e-9
    curve = find_op(curves_of(calibrate_from_rows(rows, HOST)), "add", "fp32", 1)
    assert curve.forward_s[1] == curve.forward_s[0]


def test_rows_without_the_machine_are_refused() -> None:
    rows = [row for row in perfect_rows() if row["kind"] != "machine"]
    with pytest.raises(InputError, match="no 'machine'"):
        calibrate_from_rows(rows, HOST)


def test_a_good_calibration_raises_no_doubt() -> None:
    assert find_implausible(calibrate_from_rows(perfect_rows(), HOST)) == []


@pytest.mark.parametrize(
    ("spoil", "doubt"),
    [
        (lambda row: row["kind"] == "linear" and row["threads"] == 2, "slower with 2 threads"),
        (lambda row: row["kind"] == "linear" and row["threads"] == 1, "was disturbed"),
        (lambda row: row["kind"] == "copy", "not credible"),
    ],
)
def test_what_contradicts_physics_is_doubted(spoil, doubt: str) -> None:
    rows = perfect_rows()
    for row in rows:
        if spoil(row):
            for name in ("forward_s", "training_s", "time_s"):
                if name in row:
                    row[name] *= 100
    assert any(doubt in sentence for sentence in find_implausible(calibrate(rows)))


def test_a_busy_machine_and_scattered_points_are_doubted() -> None:
    busy = [{**row, "clean_fraction": 0.2} for row in perfect_rows()]
    assert any("had the cores" in doubt for doubt in find_implausible(calibrate(busy)))
    wild = perfect_rows(noise=0.8)
    assert any("scatter" in doubt for doubt in find_implausible(calibrate(wild)))


def calibrate(rows: list) -> Fleet:
    return calibrate_from_rows(rows, HOST, date="2026-11-24")
