from __future__ import annotations

from datetime import date
from pathlib import Path

import pytest

from tests.catalog.overlays import write
from twofold.catalog import (
    electricity_price,
    is_stale,
    lint,
    market_price,
    purchase_price,
    resolve_pool,
)
from twofold.catalog.prices import all_prices, earliest_day, machine_price
from twofold.errors import InputError
from twofold.figure import Figure

TODAY = date(2026, 11, 24)


def price_of(day: str, basis: str = "published") -> Figure:
    return Figure(value=1.0, unit="USD/h", basis=basis, source="t", date=day)  # type: ignore[arg-type]


def test_the_newest_list_price_wins() -> None:
    price = machine_price("aws-p5", "h100-sxm", 8, term="on-demand", region=None)
    assert price is not None
    assert price.value == 55.04
    assert price.basis == "published"


def test_terms_are_not_mixed() -> None:
    assert machine_price("azure-nd-h100-v5", "h100-sxm", 8, term="reserved", region=None)
    spot = resolve_pool("h100-sxm:8", term="spot").usd_per_node_hour
    on_demand = resolve_pool("h100-sxm:8").usd_per_node_hour
    assert spot is not None
    assert on_demand is not None
    assert spot.value < on_demand.value
    assert resolve_pool("gaudi3:8", term="spot").usd_per_node_hour is None


def test_without_a_list_price_the_market_stands_in_and_says_so() -> None:
    price = resolve_pool("azure-nd-h200-v5").usd_per_node_hour
    market = market_price("h200-sxm")
    assert price is not None
    assert market is not None
    assert price.value == pytest.approx(8 * market.value)
    assert price.basis == "published"
    assert "no list price of 'azure-nd-h200-v5'" in price.source
    assert "market price per accelerator" in price.source


def test_a_published_median_is_the_market_price() -> None:
    market = market_price("h100-sxm")
    assert market is not None
    assert market.value == 2.95


def test_a_partial_machine_costs_its_share() -> None:
    part, whole = resolve_pool("trainium1:4"), resolve_pool("trainium1:16")
    assert part.usd_per_node_hour is not None
    assert whole.usd_per_node_hour is not None
    assert part.usd_per_node_hour.value == pytest.approx(whole.usd_per_node_hour.value / 4)


def test_no_price_nowhere_is_none() -> None:
    assert market_price("maia-200") is None
    assert machine_price("x", "maia-200", 4, term="on-demand", region=None) is None


def test_prices_go_stale() -> None:
    assert is_stale(price_of("2026-10-01"), TODAY)
    assert is_stale(price_of("2026"), TODAY)
    assert is_stale(price_of("undated"), TODAY)
    assert not is_stale(price_of("2026-11-01"), TODAY)
    assert not is_stale(price_of("undated", "user"), TODAY)


def test_dates() -> None:
    assert earliest_day("2026-05") == date(2026, 5, 1)
    assert earliest_day("2026-13-01") is None
    assert earliest_day("soon") is None


def test_no_sentinel_is_shipped() -> None:
    assert all(0 < price.usd_per_hour.value / price.devices < 50 for price in all_prices())


def test_a_sentinel_price_is_found(workplace: Path) -> None:
    row = '[[price]]\naccelerator = "tpu-v6e"\nitem = "tpu-v6e-1"\nusd_per_hour = 700.0\n'
    write(
        workplace / "catalog.d" / "prices" / "bad.toml",
        row + 'region = "asia-east1"\nsource = "a catalogue"\nas_of = "2026-11"\n',
    )
    assert "sentinel-price" in {fault.rule for fault in lint()}


def test_purchase_and_electricity() -> None:
    rack = purchase_price("gb200")
    assert rack is not None
    assert rack.value == pytest.approx(3.1e6 / 72, rel=1e-4)
    assert purchase_price("maia-200") is None
    tariff = electricity_price("usa")
    assert tariff is not None
    assert tariff.basis == "assumed"
    assert electricity_price("FRA") is None


def test_the_users_price_wins_and_other_currencies_are_refused(workplace: Path) -> None:
    path = workplace / "catalog.d" / "prices" / "mine.toml"
    row = '[[price]]\nmachine = "aws-p5"\naccelerator = "h100-sxm"\ndevices = 8\nsource = "deal"\n'
    write(path, f'{row}usd_per_hour = 20.0\nbasis = "user"\nas_of = "2026-11-20"\n')
    price = resolve_pool("aws-p5").usd_per_node_hour
    assert price is not None
    assert price.value == 20.0
    write(path, f'currency = "EUR"\n{row}usd_per_hour = 20.0\n')
    with pytest.raises(InputError, match="EUR"):
        resolve_pool("aws-p5")


@pytest.mark.parametrize(
    "row",
    [
        'usd_per_hour = -1.0\nsource = "x"',
        'usd_per_hour = nan\nsource = "x"',
        "usd_per_hour = 1.0",
        'source = "x"',
        'usd_per_hour = 1.0\nsource = "x"\nterm = "weekly"',
        'usd_per_hour = 1.0\nsource = "x"\ndevices = 0',
        'usd_per_hour = 1.0\nsource = "x"\nprize = 2',
    ],
)
def test_bad_rows_are_refused_with_their_place(row: str, workplace: Path) -> None:
    write(workplace / "catalog.d" / "prices" / "bad.toml", f"[[price]]\n{row}\n")
    with pytest.raises(InputError) as caught:
        resolve_pool("aws-p5")
    assert "bad.toml, price 1" in str(caught.value)
