"""`hf:PLACE`: a Hugging Face config, from a file, a folder, the hub's local cache or the hub."""

from __future__ import annotations

import json
import os
import re
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

from twofold.document import read_text
from twofold.errors import EnvironmentLack, InputError
from twofold.model import Model
from twofold.sources.huggingface import model_from_config

_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*$")
_TIMEOUT_S = 20
_MOST_BYTES = 2**22


def model_from_hub(place: str) -> Model:
    """The model of a config. The network is used only for `org/name`, and only where the local
    cache has no such model."""
    path = Path(place).expanduser()
    if path.is_dir():
        path = path / "config.json"
    if path.is_file():
        title = path.parent.resolve().name if path.name == "config.json" else path.stem
        return model_from_config(_decoded(read_text(path), str(path)), name=title)
    if not _ID.match(place) or place.endswith(".json"):
        raise InputError(
            f"there is no file '{place}'",
            at=f"hf:{place}",
            help="name a config.json, a folder with one, or a model of the hub as hf:org/name",
        )
    cached = _cached(place)
    text = read_text(cached) if cached is not None else _fetched(place)
    return model_from_config(_decoded(text, f"hf:{place}"), name=place.rpartition("/")[2])


def _cached(place: str) -> Path | None:
    """The newest config that the hub's own tools have fetched before."""
    home = Path(os.environ.get("HF_HOME", "~/.cache/huggingface")).expanduser()
    folder = Path(os.environ.get("HF_HUB_CACHE", home / "hub"))
    found = (folder / f"models--{place.replace('/', '--')}").glob("snapshots/*/config.json")
    return max(found, key=lambda path: path.stat().st_mtime, default=None)


def _fetched(place: str) -> str:
    address = os.environ.get("HF_ENDPOINT", "https://huggingface.co").rstrip("/")
    if os.environ.get("HF_HUB_OFFLINE", "") not in ("", "0"):
        raise EnvironmentLack(
            f"'{place}' is not in the local cache, and HF_HUB_OFFLINE forbids to fetch it",
            at=f"hf:{place}",
            help="fetch its config.json where there is a network, and name the file",
        )
    try:
        request = f"{address}/{place}/resolve/main/config.json"
        with urllib.request.urlopen(request, timeout=_TIMEOUT_S) as answer:
            content: bytes = answer.read(_MOST_BYTES)
    except urllib.error.HTTPError as error:
        raise InputError(
            f"the hub answers {error.code} for '{place}'",
            at=f"hf:{place}",
            help="check the name; of a model behind a licence fetch config.json yourself and "
            "name the file",
        ) from error
    except OSError as error:
        raise EnvironmentLack(
            f"the hub cannot be reached: {getattr(error, 'reason', error)}",
            at=f"hf:{place}",
            help="name a config.json on this machine, as hf:./config.json",
        ) from error
    return content.decode(errors="replace")


def _decoded(text: str, at: str) -> dict[str, Any]:
    try:
        mapping = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InputError(
            f"it is not JSON: {error}", at=at, help="check that it is a model's config.json"
        ) from error
    if not isinstance(mapping, dict):
        raise InputError(
            "it is not a table of keys", at=at, help="check that it is a model's config.json"
        )
    return mapping
