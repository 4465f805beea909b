"""A model as the verbs take it: what importing one executes is said before, and what of it was
not understood afterwards."""

from __future__ import annotations

from twofold.cli.output import say
from twofold.model import Model
from twofold.sources.coverage import Imported
from twofold.sources.models import find_model
from twofold.sources.named import executes, import_model


def imported_model(name: str) -> Imported | None:
    """The import that a name with a framework's scheme means; None for any other name."""
    what = executes(name)
    if what is None:
        return None
    say(f"twofold {what}")
    return import_model(name)


def named_model(name: str) -> Model:
    """The model of any name, with a line on stderr about an imported one."""
    imported = imported_model(name)
    if imported is None:
        return find_model(name)
    from twofold.report.import_text import import_lines

    for line in import_lines(imported):
        say(line)
    return imported.model
