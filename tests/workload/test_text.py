"""Text is split by content, duplicates go, and the same text gives the same parts."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from twofold.errors import InputError
from twofold.workload.text import prepare_corpus


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TWOFOLD_HOME", str(tmp_path_factory.mktemp("home")))


def write_documents(folder: Path, count: int, *, rename: str = "") -> None:
    folder.mkdir(exist_ok=True)
    generator = np.random.default_rng(0)
    for index in range(count):
        lines = [f"document {index} line {i} {generator.integers(1 << 60)}" for i in range(40)]
        (folder / f"{rename}{index:03d}.txt").write_text("\n".join(lines))


def test_parts_are_disjoint_and_cover_everything(tmp_path: Path) -> None:
    write_documents(tmp_path / "text", 300)
    corpus = prepare_corpus(str(tmp_path / "text"))
    parts = [corpus.tokens(part).tobytes().split(b"\0")[:-1] for part in ("train", "tune", "test")]
    documents = [document for part in parts for document in part]
    assert len(documents) == len(set(documents)) == 300
    assert all(parts)
    assert len(parts[0]) > 4 * len(parts[1])


def test_names_do_not_matter(tmp_path: Path) -> None:
    write_documents(tmp_path / "a", 300)
    write_documents(tmp_path / "b", 300, rename="renamed-")
    first, second = (prepare_corpus(str(tmp_path / name)) for name in "ab")
    assert first.text_hash == second.text_hash


def test_changed_text_changes_the_hash(tmp_path: Path) -> None:
    write_documents(tmp_path / "a", 300)
    first = prepare_corpus(str(tmp_path / "a"))
    (tmp_path / "a" / "000.txt").write_text("something else altogether\n" * 9)
    assert prepare_corpus(str(tmp_path / "a")).text_hash != first.text_hash


def test_near_duplicates_are_dropped(tmp_path: Path) -> None:
    write_documents(tmp_path / "a", 300)
    for index in range(5):
        original = (tmp_path / "a" / f"{index:03d}.txt").read_text()
        (tmp_path / "a" / f"copy-{index}.txt").write_text(original + "\none more line of text\n")
    corpus = prepare_corpus(str(tmp_path / "a"))
    assert corpus.num_duplicates == 5


def test_one_large_file_is_split_too(tmp_path: Path) -> None:
    path = tmp_path / "one.txt"
    path.write_text("\n".join(f"line {i * 7919} of the only file" for i in range(30000)))
    corpus = prepare_corpus(str(path))
    assert corpus.num_tokens["tune"] > 1024
    assert corpus.num_tokens["test"] > 1024


@pytest.mark.parametrize("content", [b"", b"   \n", b"short", b"\0binary\0"])
def test_text_that_cannot_be_used_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "bad.txt"
    path.write_bytes(content)
    with pytest.raises(InputError):
        prepare_corpus(str(path))


def test_missing_text_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="there is no file or folder"):
        prepare_corpus(str(tmp_path / "nowhere"))


def test_token_shards_are_used_in_place(tmp_path: Path) -> None:
    tokens = np.arange(5000, dtype="<u2") % 300
    tokens.tofile(tmp_path / "train.bin")
    tokens[:2000].tofile(tmp_path / "val.bin")
    corpus = prepare_corpus(str(tmp_path))
    assert corpus.vocab == 300
    assert corpus.num_tokens == {"train": 5000, "tune": 1000, "test": 1000}
    assert corpus.tokens("test")[0] == tokens[1000]


def test_empty_shards_are_refused(tmp_path: Path) -> None:
    (tmp_path / "train.bin").write_bytes(b"")
    with pytest.raises(InputError, match=r"train\.bin"):
        prepare_corpus(str(tmp_path))
