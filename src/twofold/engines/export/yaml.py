"""YAML of two levels, one setting a line: as much as engines' configurations need of it."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from twofold.engines.export.form import Setting
from twofold.engines.export.shell import comment
from twofold.errors import InputError

_LINE = re.compile(r"^(  )?([A-Za-z_]\w*):(?: (.*?))?(?:  # .*)?$")


def yaml_text(sections: Mapping[str, Sequence[Setting]], *, title: str) -> str:
    """The settings of section "" stand at the left, those of a name indented under it."""
    lines = [f"# {title}"]
    for name, settings in sections.items():
        if name:
            lines.append(f"{name}:")
        indent = "  " if name else ""
        lines += [f"{indent}{one.option}: {_value(one.value)}{_from(one)}" for one in settings]
    return "\n".join(lines) + "\n"


def read_yaml(text: str, *, at: str) -> dict[str, Any]:
    """What `yaml_text` wrote; the settings of a section under `section.option`."""
    read: dict[str, Any] = {}
    section = ""
    for line in text.splitlines():
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        match = _LINE.match(line)
        if match is None:
            raise InputError(
                f"the line '{line.strip()}' is not `option: value`",
                at=at,
                help="name a folder that `twofold export` wrote",
            )
        indented, option, value = match.groups()
        if not indented and not value:
            section = f"{option}."
            continue
        section = section if indented else ""
        read[f"{section}{option}"] = _parsed(value or "")
    return read


def _value(value: Any) -> str:
    """A JSON value is a YAML value."""
    return json.dumps(value)


def _parsed(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text


def _from(setting: Setting) -> str:
    return comment(setting.comes_from)
