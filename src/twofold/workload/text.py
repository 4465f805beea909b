"""Text to token files, split three ways so that a claim never rests on text that was tuned on.

Files are cut into documents, exact and near duplicates are dropped, and each document's content
hash decides its part: 90 % train, 5 % tune, 5 % test. The same text gives the same parts on
every machine, whatever the file names or their order.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sysconfig
import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from twofold.errors import EnvironmentLack, InputError

Part = Literal["train", "tune", "test"]
PARTS: tuple[Part, ...] = ("train", "tune", "test")

_SEPARATOR = b"\0"
_DOCUMENT_BYTES = 64 * 1024
_MANY_FILES = 100
_DUPLICATE_FRACTION = 0.5
_COMMON_LINE = 50
_FORM = 2
"""Raised when the split changes, so that an old cache is not read as a new one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Corpus:
    """A prepared text: one flat token file per part, and the hash of all three together.

    Token files are uint8 for bytes and little-endian uint16 for a user's own shards.
    """

    folder: str
    text_hash: str
    dtype: Literal["uint8", "uint16"]
    vocab: int
    num_tokens: dict[str, int]
    num_documents: int
    num_duplicates: int

    def tokens(self, part: Part) -> NDArray[np.uint8] | NDArray[np.uint16]:
        """The tokens of one part, memory-mapped: [num_tokens]."""
        return np.memmap(Path(self.folder) / f"{part}.bin", dtype=self.dtype, mode="r")


def cache_folder() -> Path:
    """Where prepared text and calibrations are kept: `$TWOFOLD_HOME`, else the user's cache."""
    home = os.environ.get("TWOFOLD_HOME")
    if home:
        return Path(home)
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "twofold"


def prepare_corpus(text: str) -> Corpus:
    """Tokenise and split `text` once; later calls find it in the cache.

    `text` is `stdlib`, a text file, a folder of text files, or a folder with `train.bin` and
    `val.bin` (or `tune.bin` and `test.bin`) in nanoGPT's uint16 form.
    """
    source = _resolve(text)
    if (source / "train.bin").is_file():
        return _from_shards(source)
    files = _text_files(source, python_only=text == "stdlib")
    key = _listing_hash(files)
    folder = cache_folder() / f"text-{key[:16]}"
    if (folder / "corpus.json").is_file():
        return open_corpus(folder)
    documents, num_duplicates = _without_duplicates(_documents(files))
    parts = _split(documents)
    for part in PARTS:
        if len(parts[part]) < 1024:
            raise InputError(
                f"the {part} part of the text has {len(parts[part])} bytes",
                at=str(source),
                help="bring more text: 200 kB in all is about the least that can be split",
            )
    return _write(folder, parts, num_documents=len(documents), num_duplicates=num_duplicates)


def open_corpus(folder: Path) -> Corpus:
    """Read a prepared text's description."""
    try:
        fields = json.loads((folder / "corpus.json").read_text())
        return Corpus(**fields)
    except (OSError, ValueError, TypeError) as error:
        raise InputError(
            f"the prepared text is not readable: {error}",
            at=str(folder),
            help="delete the folder; it is made again",
        ) from error


def _resolve(text: str) -> Path:
    if text == "stdlib":
        return Path(sysconfig.get_paths()["stdlib"])
    source = Path(text).expanduser()
    if not source.exists():
        raise InputError(
            f"there is no file or folder '{text}'",
            at="workload, text",
            help="name a text file, a folder of text files, or 'stdlib'",
        )
    return source


def _text_files(source: Path, *, python_only: bool) -> list[Path]:
    if source.is_file():
        return [source]
    pattern = "*.py" if python_only else "*"
    skipped = {"site-packages", "dist-packages", "__pycache__"}
    files = [
        path
        for path in source.rglob(pattern)
        if path.is_file() and not skipped & set(path.relative_to(source).parts)
    ]
    if not files:
        raise InputError("the folder holds no text files", at=str(source), help="check the path")
    return sorted(files)


def _listing_hash(files: list[Path]) -> str:
    digest = hashlib.sha256(f"form {_FORM}".encode())
    for path in files:
        stat = path.stat()
        digest.update(f"{path}\0{stat.st_size}\0{stat.st_mtime_ns}\n".encode())
    return digest.hexdigest()


def _documents(files: list[Path]) -> list[bytes]:
    """Whole files where there are many, else pieces of about 64 kB cut at line ends."""
    texts = []
    for path in files:
        content = path.read_bytes()
        if _SEPARATOR in content:
            continue
        texts.append(content)
    if not any(texts):
        raise InputError(
            "there is no text in it", at=str(files[0]), help="bring files with text, not binaries"
        )
    if len(texts) >= _MANY_FILES:
        return [text for text in texts if text.strip()]
    total = sum(len(text) for text in texts)
    piece_bytes = max(1024, min(_DOCUMENT_BYTES, total // 200))
    return [piece for text in texts for piece in _pieces(text, piece_bytes) if piece.strip()]


def _pieces(text: bytes, piece_bytes: int) -> list[bytes]:
    pieces, start = [], 0
    while start < len(text):
        end = min(start + piece_bytes, len(text))
        if end < len(text):
            line_end = text.rfind(b"\n", start, end)
            end = line_end + 1 if line_end > start else end
        pieces.append(text[start:end])
        start = end
    return pieces


def _without_duplicates(documents: list[bytes]) -> tuple[list[bytes], int]:
    """Drop a document when half of its lines stand in one that was kept before it.

    Order is by content hash, so the outcome does not depend on names. Lines that many documents
    share (licences, imports) say nothing and are left out of the count.
    """
    ordered = sorted(documents, key=_content_hash)
    lines_of = [_telling_lines(document) for document in ordered]
    frequency = Counter(line for lines in lines_of for line in lines)
    seen_in: dict[int, list[int]] = {}
    kept: list[bytes] = []
    for document, lines in zip(ordered, lines_of, strict=True):
        telling = [line for line in lines if frequency[line] <= _COMMON_LINE]
        shared = Counter(owner for line in telling for owner in seen_in.get(line, ()))
        most = max(shared.values(), default=0)
        if telling and most >= _DUPLICATE_FRACTION * len(telling):
            continue
        if not telling and document in kept:
            continue
        for line in telling:
            seen_in.setdefault(line, []).append(len(kept))
        kept.append(document)
    return kept, len(documents) - len(kept)


def _telling_lines(document: bytes) -> set[int]:
    return {hash(line) for raw in document.split(b"\n") if len(line := raw.strip()) > 8}


def _content_hash(document: bytes) -> bytes:
    return hashlib.sha256(document).digest()


def _split(documents: list[bytes]) -> dict[Part, bytes]:
    parts: dict[Part, bytearray] = {part: bytearray() for part in PARTS}
    for document in documents:
        bucket = int.from_bytes(_content_hash(document)[:4], "big") % 100
        part: Part = "train" if bucket < 90 else "tune" if bucket < 95 else "test"
        parts[part] += document + _SEPARATOR
    return {part: bytes(content) for part, content in parts.items()}


def _write(
    folder: Path, parts: dict[Part, bytes], *, num_documents: int, num_duplicates: int
) -> Corpus:
    digest = hashlib.sha256()
    for part in PARTS:
        digest.update(hashlib.sha256(parts[part]).digest())
    corpus = Corpus(
        folder=str(folder),
        text_hash=digest.hexdigest(),
        dtype="uint8",
        vocab=256,
        num_tokens={part: len(parts[part]) for part in PARTS},
        num_documents=num_documents,
        num_duplicates=num_duplicates,
    )
    with _writing(folder):
        folder.parent.mkdir(parents=True, exist_ok=True)
        scratch = Path(tempfile.mkdtemp(prefix="text-", dir=folder.parent))
        try:
            for part in PARTS:
                (scratch / f"{part}.bin").write_bytes(parts[part])
            (scratch / "corpus.json").write_text(json.dumps(asdict(corpus), indent=1))
            if not folder.exists():
                scratch.rename(folder)
        finally:
            shutil.rmtree(scratch, ignore_errors=True)
    return corpus


@contextmanager
def _writing(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise EnvironmentLack(
            f"the prepared text cannot be written: {error}",
            at=str(folder),
            help="free some space, or set TWOFOLD_HOME to a folder you may write to",
        ) from error


def _from_shards(source: Path) -> Corpus:
    """A user's own token files, used in place; `val.bin` alone is halved into tune and test."""
    for path in sorted(source.glob("*.bin")):
        if path.stat().st_size % 2:
            raise InputError(
                f"{path.stat().st_size} bytes are not whole uint16 tokens",
                at=str(path),
                help="write tokens as little-endian uint16",
            )
    arrays: dict[str, NDArray[np.uint16]] = {
        name: np.memmap(source / f"{name}.bin", dtype="<u2", mode="r")
        for name in ("train", "tune", "test", "val")
        if (source / f"{name}.bin").is_file() and (source / f"{name}.bin").stat().st_size >= 2
    }
    if "train" not in arrays or not ({"tune", "test"} <= set(arrays) or "val" in arrays):
        raise InputError(
            f"token files found: {sorted(arrays) or 'none that is not empty'}",
            at=str(source),
            help="provide train.bin and either val.bin or both tune.bin and test.bin (uint16)",
        )
    if "val" in arrays and not {"tune", "test"} <= set(arrays):
        half = len(arrays["val"]) // 2
        arrays["tune"], arrays["test"] = arrays["val"][:half], arrays["val"][half:]
        return _write_shards(arrays)
    return _describe_shards(source, arrays)


def _write_shards(arrays: dict[str, NDArray[np.uint16]]) -> Corpus:
    key = hashlib.sha256(b"".join(_content_hash(arrays[p].tobytes()) for p in PARTS)).hexdigest()
    folder = cache_folder() / f"shards-{key[:16]}"
    with _writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        for part in PARTS:
            target = folder / f"{part}.bin"
            if not target.exists():
                scratch = target.with_suffix(f".{os.getpid()}")
                arrays[part].tofile(scratch)
                scratch.replace(target)
    return _describe_shards(folder, arrays)


def _describe_shards(folder: Path, arrays: dict[str, NDArray[np.uint16]]) -> Corpus:
    digest = hashlib.sha256()
    for part in PARTS:
        digest.update(_content_hash(arrays[part].tobytes()))
    return Corpus(
        folder=str(folder.absolute()),
        text_hash=digest.hexdigest(),
        dtype="uint16",
        vocab=int(max(int(arrays[part].max()) for part in PARTS)) + 1,
        num_tokens={part: len(arrays[part]) for part in PARTS},
        num_documents=0,
        num_duplicates=0,
    )
