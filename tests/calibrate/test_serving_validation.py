"""Scoring of published serving rows, on real ones, and the fit on a few."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest

from twofold.calibrate.fitted import serving_efficiencies_toml
from twofold.calibrate.inference_rows import read_serving_rows
from twofold.calibrate.serving_fit import fit_serving
from twofold.calibrate.serving_pricing import curve_name, predict_serving, price_serving
from twofold.calibrate.serving_validation import errors_of, validate_serving
from twofold.catalog import find_node
from twofold.cli.estimation import Validate
from twofold.errors import InputError
from twofold.perf.serving_rates import ServingEfficiencies, fitted_serving

ROWS = Path(__file__).parents[2] / "benchmarks" / "data" / "inference_measured.csv"


@pytest.fixture(scope="module")
def few(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Every fortieth row: all vendors, engines and kinds of load."""
    with ROWS.open(newline="") as stream:
        rows = list(csv.reader(stream))
    path = tmp_path_factory.mktemp("rows") / "few.csv"
    with path.open("w", newline="") as stream:
        csv.writer(stream).writerows([rows[0], *rows[1::40]])
    return path


def test_the_shipped_fit_is_near_the_published_runs(few: Path) -> None:
    """Golden: of the data it was fitted on, so a change of the physics shows here."""
    report = validate_serving(few, find_node)
    assert report["tpot"]["median"] < 0.20
    assert report["ttft"]["median"] < 0.50
    assert report["tokens"]["median"] < 0.20
    assert {"nvidia", "amd", "aws"} <= set(report["by_vendor"])
    assert {"closed", "poisson", "offline", "static"} <= set(report["by_load"])
    assert report["by_mode"].keys() == {"aggregated", "disaggregated"}
    assert report["tails"]["tpot"]["p99_over_p50"] > 1.0
    json.dumps(report, allow_nan=False)


def test_duplicates_of_one_curve_do_not_move_the_median(few: Path, tmp_path: Path) -> None:
    lines = few.read_text().splitlines()
    twin = tmp_path / "twin.csv"
    closed = next(line for line in lines if "closed loop" in line)
    twin.write_text("\n".join([*lines, *[closed] * 50]))
    once, often = (validate_serving(path, find_node) for path in (few, twin))
    assert often["tpot"]["rows"] == once["tpot"]["rows"] + 50
    assert often["tpot"]["median"] == pytest.approx(once["tpot"]["median"], abs=1e-9)


def test_a_fit_comes_nearer_than_its_first_guess(few: Path) -> None:
    priced = price_serving(read_serving_rows(few), find_node)
    guess = fit_serving(priced, rounds=0).efficiencies
    fit = fit_serving(priced, rounds=1, steps=3).efficiencies
    before, after = (
        np.nanmedian(np.abs(errors_of(priced, predict_serving(priced, one)[0])["tpot"]))
        for one in (guess, fit)
    )
    assert after < 0.9 * before
    assert all(0 < die.memory <= 1 and 0 < die.gemm <= 1 for die in fit.dies.values())


def test_the_fit_survives_its_file(tmp_path: Path) -> None:
    fit = fitted_serving()
    path = tmp_path / "fit.toml"
    path.write_text(serving_efficiencies_toml(fit))
    again: ServingEfficiencies = fitted_serving(path)
    assert again == fit


def test_curves_join_loads_of_one_configuration(few: Path) -> None:
    priced = price_serving(read_serving_rows(few), find_node)
    names = {curve_name(setting) for setting in priced.settings}
    assert 1 < len(names) <= len(priced.settings)


def test_the_verb_prints_the_three_metrics(few: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert Validate(rows=few).execute() == 0
    told = capsys.readouterr().out
    for word in ("TPOT: median error", "TTFT: median error", "output tokens/s: median error"):
        assert word in told


def test_a_file_without_an_answerable_row_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_text("model,isl,osl,ttft_ms\nNobody,10,10,5\n")
    with pytest.raises(InputError, match="no row can be answered"):
        validate_serving(path, find_node)
