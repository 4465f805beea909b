"""From the name a person types to the entry that is meant.

Letter case, spaces and underscores do not matter, and every entry has aliases ("H100 SXM",
"a100-80gb"). What is not known is refused with the nearest names: never a family guess.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable

from twofold.catalog import layers
from twofold.catalog.form import Entry
from twofold.catalog.vocabulary import EntryKind
from twofold.errors import InputError

_NOT_CHIPS = {
    "mai-1": "Microsoft's AI chips are 'maia-100' and 'maia-200'",
    "mai-1-preview": "Microsoft's AI chips are 'maia-100' and 'maia-200'",
}


def accelerator_entry(name: str) -> Entry:
    """The accelerator of that id or alias, or InputError with the nearest ids."""
    _refuse_models(name)
    found = _find("accelerator", name)
    if found is None:
        raise _unknown(name, "accelerator", names("accelerator"))
    return found


def node_entry(name: str) -> Entry | None:
    """The machine of that id or alias, or None."""
    _refuse_models(name)
    return _find("node", name)


def machine_entry(name: str) -> Entry:
    """The machine of that name, or the customary machine of the accelerator of that name."""
    node = node_entry(name)
    if node is not None:
        return node
    device = _find("accelerator", name)
    if device is None:
        known = [*names("node"), *names("accelerator")]
        raise _unknown(name, "machine or accelerator", known)
    return customary_node(device)


def customary_node(device: Entry) -> Entry:
    """The machine in which that accelerator is usually bought: the one its file names by `node`,
    else `node_devices` of it on one board (1 where the file says nothing)."""
    name = device.settings.get("node")
    if name is not None:
        node = _find("node", name)
        if node is None:
            raise _unknown(str(name), "machine", names("node"))
        return node
    devices = device.settings.get("node_devices", 1)
    return Entry(
        kind="node",
        id=device.id if devices == 1 else f"{device.id}-x{devices}",
        aliases=(),
        settings={"accelerator": device.id, "devices": devices},
        figures={},
        origins=device.origins,
    )


def names(kind: EntryKind) -> list[str]:
    """Ids and aliases of a kind, sorted."""
    found: set[str] = set()
    for entry in layers.entries(kind).values():
        found |= {entry.id, *entry.aliases}
    return sorted(found)


def _find(kind: EntryKind, name: str) -> Entry | None:
    wanted = normalise(name)
    exact = layers.entry(kind, wanted)
    if exact is not None:
        return exact
    return next(
        (entry for entry in layers.entries(kind).values() if wanted in _spellings(entry)), None
    )


def _spellings(entry: Entry) -> set[str]:
    """The names of an entry, each also behind its vendor's ("NVIDIA H100 SXM")."""
    known = {normalise(name) for name in (entry.id, *entry.aliases)}
    vendor = normalise(entry.settings.get("vendor", ""))
    return known | {f"{vendor}-{name}" for name in known}


def normalise(name: str) -> str:
    """`" TPU v5p"` -> `"tpu-v5p"`: how names are compared."""
    return "-".join(name.lower().replace("_", "-").split())


def _refuse_models(name: str) -> None:
    hint = _NOT_CHIPS.get(normalise(name))
    if hint is not None:
        raise InputError(
            f"'{name}' is a language model, not a chip",
            at="catalog, accelerators",
            help=f"{hint}; give a model with `twofold plan MODEL`",
        )


def _unknown(name: str, what: str, known: Iterable[str]) -> InputError:
    near = difflib.get_close_matches(normalise(name), list(known), n=3, cutoff=0.5)
    folder = "accelerators" if what == "accelerator" else "nodes"
    hint = "perhaps " + " or ".join(f"'{one}'" for one in near) + " is meant; " if near else ""
    return InputError(
        f"there is no {what} '{name}'",
        at="catalog",
        help=f"{hint}or describe it in catalog.d/{folder}/NAME.toml",
    )
