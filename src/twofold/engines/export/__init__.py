"""Plans handed over to other engines: complete, runnable sets of files, and read back."""

from twofold.engines.export.folder import (
    export_plan,
    export_serving_plan,
    import_plan,
    launchable,
)
from twofold.engines.export.registry import ENGINES, find_engine

__all__ = [
    "ENGINES",
    "export_plan",
    "export_serving_plan",
    "find_engine",
    "import_plan",
    "launchable",
]
