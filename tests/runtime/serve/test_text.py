"""Tokens to text as they come, and stop strings: however text is cut, the whole is the same."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.runtime.serve.documents import BYTES
from twofold.errors import InputError
from twofold.runtime.serve.api.continuation import Continuation
from twofold.runtime.serve.chat import find_template
from twofold.runtime.serve.folder import end_ids
from twofold.runtime.serve.messages import Token
from twofold.runtime.serve.tokenisers import ByteTokeniser, HuggingFaceTokeniser, find_tokeniser


def told(tokens: list[int], finish: str = "length") -> list[Token]:
    last = len(tokens) - 1
    return [
        Token(0, token, finish if index == last else None, None, None, 0, 0.0)  # type: ignore[arg-type]
        for index, token in enumerate(tokens)
    ]


def continuation(stop: tuple[str, ...] = (), least: int = 0) -> Continuation:
    return Continuation(ByteTokeniser(), stop=stop, stop_ids=frozenset({0}), min_new_tokens=least)


@given(st.binary(min_size=1, max_size=60))
def test_bytes_one_by_one_are_the_bytes_together(data: bytes) -> None:
    stream = ByteTokeniser().stream()
    parts = [stream.add(byte) for byte in data]
    assert "".join(parts) + stream.finish() == data.decode("utf-8", errors="replace")


@given(st.text(max_size=40))
def test_text_goes_to_tokens_and_back(text: str) -> None:
    tokeniser = ByteTokeniser()
    stream = tokeniser.stream()
    ids = tokeniser.encode(text, special=True)
    expected = text.encode("utf-8", errors="replace").decode()
    assert "".join(map(stream.add, ids)) + stream.finish() == expected


def test_pieces_tell_all_tokens_apart() -> None:
    pieces = [ByteTokeniser().piece(token) for token in range(300)]
    assert len(set(pieces)) == 300


@given(
    st.text(alphabet="abé", min_size=1, max_size=30),
    st.lists(st.text(alphabet="abé", min_size=1, max_size=4), min_size=1, max_size=3),
)
def test_the_text_ends_before_the_first_stop_string(text: str, stops: list[str]) -> None:
    tokens = told(list(text.encode()))
    answer, finish = "", None
    following = continuation(tuple(stops))
    for token in tokens:
        piece = following.add(token)
        answer += piece.text
        finish = piece.finish
        if finish is not None:
            break
    # the earliest end of a stop string decides, and of those the one that begins first
    ends = [(text.find(stop) + len(stop), text.find(stop)) for stop in stops if stop in text]
    if not ends:
        assert (answer, finish) == (text, "length")
        return
    first_end = min(end for end, _ in ends)
    begin = min(begin for end, begin in ends if end == first_end)
    assert (answer, finish) == (text[:begin], "stop")


def test_an_end_token_has_no_text_and_a_cut_character_is_replaced() -> None:
    following = continuation()
    pieces = [following.add(token) for token in told([*"né".encode()[:2], 0], finish="stop")]
    assert "".join(piece.text for piece in pieces) == "n�"
    assert pieces[-1].finish == "stop"


def test_stop_strings_wait_for_the_least_length() -> None:
    following = continuation(("b",), least=3)
    pieces = [following.add(token) for token in told(list(b"abab"))]
    assert [piece.finish for piece in pieces] == [None, None, None, "stop"]


def tokeniser(folder: Path) -> HuggingFaceTokeniser:
    tokenizers = pytest.importorskip("tokenizers")
    made = tokenizers.Tokenizer(tokenizers.models.BPE())
    made.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = tokenizers.decoders.ByteLevel()
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=300,
        special_tokens=["<end>"],
        initial_alphabet=tokenizers.pre_tokenizers.ByteLevel.alphabet(),
    )
    made.train_from_iterator(["the cat and the hat, naïve café"] * 3, trainer)
    made.save(str(folder / "tokenizer.json"))
    return HuggingFaceTokeniser(made, frozenset({0}))


@pytest.mark.parametrize(
    "text", ["the cat and the hat", "naïve café \N{SNOWMAN}", "日本語 text 😀!"]
)
def test_a_hugging_face_tokeniser_streams_whole_characters(tmp_path: Path, text: str) -> None:
    made = tokeniser(tmp_path)
    stream = made.stream()
    parts = [stream.add(id) for id in made.encode(text, special=True)]
    assert "".join(parts) + stream.finish() == text
    assert all("�" not in part for part in parts)


def test_random_tokens_are_not_held_back_for_ever(tmp_path: Path) -> None:
    made = tokeniser(tmp_path)
    lone = next(id for id in range(1, 300) if made._tokeniser.decode([id]) == "�")
    stream = made.stream()
    parts = [stream.add(lone) for _ in range(40)]
    assert "".join(parts) + stream.finish() == "�" * 40
    assert sum(map(bool, parts)) >= 5


def test_a_model_of_bytes_has_a_plain_chat_form() -> None:
    template = find_template("random", plain=True)
    assert template is not None
    said = template([{"role": "user", "content": "hi"}])
    assert said == "user: hi\nassistant:"
    assert find_template("random", plain=False) is None


def test_a_template_cannot_reach_out(tmp_path: Path) -> None:
    from twofold.errors import InputError

    reach = "{{ messages.__class__.__mro__[1].__subclasses__() }}"
    (tmp_path / "chat_template.jinja").write_text(reach)
    template = find_template(str(tmp_path), plain=False)
    assert template is not None
    with pytest.raises(InputError, match="refuses these messages"):
        template([{"role": "user", "content": "hi"}])


def test_a_template_is_given_special_tokens_and_may_refuse(tmp_path: Path) -> None:
    from twofold.errors import InputError

    source = (
        "{{ bos_token }}{% if messages[0].role != 'user' %}"
        "{{ raise_exception('user first') }}{% endif %}{{ messages | tojson }}"
    )
    (tmp_path / "tokenizer_config.json").write_text(
        '{"bos_token": {"content": "<s>"}, "chat_template": "' + source.replace('"', '\\"') + '"}'
    )
    template = find_template(str(tmp_path), plain=False)
    assert template is not None
    assert template([{"role": "user", "content": "é"}]).startswith('<s>[{"role": "user"')
    with pytest.raises(InputError, match="user first"):
        template([{"role": "system", "content": "x"}])


@pytest.mark.parametrize(
    "config",
    [{"chat_template": 3}, {"chat_template": [{"name": "default"}, {"name": "default"}, 4]}],
)
def test_a_template_of_another_form_is_refused_or_none(config: object, tmp_path: Path) -> None:
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
    if config == {"chat_template": 3}:
        with pytest.raises(InputError, match="is not text"):
            find_template(str(tmp_path), plain=False)
    else:
        assert find_template(str(tmp_path), plain=False) is None


@pytest.mark.parametrize(
    "template", ["{{ 1 / 0 }}", "{{ range(10 ** 9) }}", "{{ messages[0].role + 1 }}", "{{ a.b.c }}"]
)
def test_whatever_a_template_does_is_told_as_its_refusal(template: str, tmp_path: Path) -> None:
    (tmp_path / "chat_template.jinja").write_text(template)
    render = find_template(str(tmp_path), plain=False)
    assert render is not None
    with pytest.raises(InputError, match="the chat template refuses"):
        render([{"role": "user", "content": "a"}])


@pytest.mark.parametrize("value", ['"</s>"', '{"a": 1}', "[1, null]", "1.5"])
def test_end_tokens_that_are_no_numbers_are_refused(value: str, tmp_path: Path) -> None:
    (tmp_path / "generation_config.json").write_text(f'{{"eos_token_id": {value}}}')
    with pytest.raises(InputError, match="the end tokens are"):
        end_ids(tmp_path)


@pytest.mark.parametrize("content", ["", "{", '{"version": "1.0"}', "[]"])
def test_a_malformed_tokeniser_is_refused(content: str, tmp_path: Path) -> None:
    pytest.importorskip("tokenizers")
    (tmp_path / "tokenizer.json").write_text(content)
    with pytest.raises(InputError, match="the tokeniser cannot be read"):
        find_tokeniser(str(tmp_path), BYTES)
