from __future__ import annotations

from pathlib import Path

import pytest

from tests.catalog.overlays import write
from twofold.catalog import (
    facility,
    grid,
    list_regions,
    observed_failure_rates,
    resolve_pool,
    typical_failure_rate,
)
from twofold.errors import InputError


@pytest.mark.parametrize(
    ("region", "value"),
    [
        ("gcp:us-central1", 0.41272),
        ("us-central1", 0.41272),
        ("FRA", 0.056039),
        ("France", 0.056039),
        ("fra", 0.056039),
        ("US-VA", 0.2448),
        ("us-east-1", 0.2448),
        ("azure:eastus", 0.2448),
        ("CN-SC", 0.1564),
        ("Finland", 0.079158),
        ("world", 0.458),
    ],
)
def test_grids_in_kg_per_kwh(region: str, value: float) -> None:
    figure = grid(region)
    assert figure.value == pytest.approx(value)
    assert figure.unit == "kgCO2e/kWh"


def test_a_region_without_its_own_figure_has_that_of_its_place_and_says_so() -> None:
    figure = grid("azure:westeurope")
    assert figure.basis == "derived"
    assert "lies in NLD" in figure.source


def test_unknown_regions_are_refused_with_the_nearest() -> None:
    with pytest.raises(InputError, match="no grid is known") as caught:
        grid("us-centrall1")
    assert "gcp:us-central1" in str(caught.value)
    with pytest.raises(InputError):
        resolve_pool("aws-p5", region="atlantis")


def test_many_places_are_listed() -> None:
    regions = list_regions()
    assert {"gcp:europe-north2", "DEU", "US-TX", "aws:eu-north-1", "azure:swedencentral"} <= set(
        regions
    )
    assert len(regions) > 150


def test_facilities() -> None:
    pue, water = facility("Azure")
    assert pue is not None
    assert water is not None
    assert (pue.value, water.value) == (1.17, 0.27)
    google, _ = facility("Google")
    assert google is not None
    assert google.basis == "assumed"
    assert facility("nobody") == (None, None)


def test_a_users_grid(workplace: Path) -> None:
    path = workplace / "catalog.d" / "grids" / "mine.toml"
    write(path, '[place]\n"our-hall" = { kgco2e_per_kwh = 0.02, source = "our dam" }\n')
    assert grid("our-hall").value == 0.02
    write(path, '[place]\n"our-hall" = { kgco2e_per_kwh = -1, source = "our dam" }\n')
    with pytest.raises(InputError, match="non-negative"):
        grid("our-hall")
    write(path, '[lies_in]\n"our-hall" = "nowhere"\n')
    with pytest.raises(InputError, match="no grid is known"):
        grid("our-hall")
    write(path, 'place = "here"\n')
    with pytest.raises(InputError, match="table"):
        grid("our-hall")


def test_failure_rates() -> None:
    assert typical_failure_rate().basis == "assumed"
    observed = [figure.value for figure in observed_failure_rates().values()]
    assert min(observed) < typical_failure_rate().value < max(observed)
