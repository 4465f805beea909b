"""Facts as TOML, and the way from a name a person types to a `Fleet` with its origins.

Accelerators, machines, fabrics, prices, grids: one small file each, every number with unit,
basis, source and date. New hardware is one more file, packaged or the user's own (`layers`).
"""

from twofold.catalog.description import (
    Description,
    FigureOrigin,
    Listing,
    describe,
    list_entries,
    why,
)
from twofold.catalog.fleets import read_fleet, rounding_remarks
from twofold.catalog.hardware import find_accelerator, find_node
from twofold.catalog.local import LOCAL
from twofold.catalog.places import facility, grid, list_regions
from twofold.catalog.pool import PoolSpec, make_pool, pool_figures, remarks, resolve_pool
from twofold.catalog.prices import (
    Term,
    electricity_price,
    is_stale,
    market_price,
    purchase_price,
)
from twofold.catalog.reliability import observed_failure_rates, typical_failure_rate
from twofold.catalog.rules import Fault, lint

__all__ = [
    "LOCAL",
    "Description",
    "Fault",
    "FigureOrigin",
    "Listing",
    "PoolSpec",
    "Term",
    "describe",
    "electricity_price",
    "facility",
    "find_accelerator",
    "find_node",
    "grid",
    "is_stale",
    "lint",
    "list_entries",
    "list_regions",
    "make_pool",
    "market_price",
    "observed_failure_rates",
    "pool_figures",
    "purchase_price",
    "read_fleet",
    "remarks",
    "resolve_pool",
    "rounding_remarks",
    "typical_failure_rate",
    "why",
]
