"""Published measured runs, one CSV row each, as models, plans and machines that can be priced.

The columns are those of `data/training_measured.csv`; any subset may be there. What a row does
not say is assumed by a rule that is written down here and counted; what cannot be assumed
(shape, device, count, batch, sequence length) makes the row unanswerable, with the reason.
"""

from __future__ import annotations

import csv
import math
import re
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from twofold.errors import InputError
from twofold.model import Experts, LatentAttention, Model

_LABELS = (
    "id", "quality", "repeat_group", "source_id", "date", "model_name", "model_family", "arch",
    "task", "accelerator", "interconnect", "precision", "data_sharding", "recompute", "schedule",
    "framework", "flops_counting", "notes", "sp",
)  # fmt: skip
_NUMBERS = (
    "params_b", "active_params_b", "layers", "hidden", "heads", "kv_heads", "head_dim", "ffn",
    "vocab", "seq_len", "experts", "top_k", "moe_ffn", "shared_experts", "accel_count",
    "accel_per_node", "tp", "pp", "vp", "cp", "ep", "dp", "micro_batch", "global_batch",
    "grad_accum", "step_time_s", "tokens_per_s_per_accel", "tflops_per_s_per_accel", "mfu_pct",
    "samples_per_s", "peak_mem_gib",
)  # fmt: skip

_DEFAULT_VOCAB = 50304
_HEAD_DIM = 128


@dataclass(frozen=True, slots=True, kw_only=True)
class PublishedRow:
    """One row as it stands in the file: labels and numbers, None where the cell is empty."""

    line: int
    labels: dict[str, str]
    numbers: dict[str, float]

    def label(self, name: str) -> str:
        return self.labels.get(name, "")

    def number(self, name: str) -> float | None:
        return self.numbers.get(name)

    def degree(self, name: str) -> int | None:
        value = self.numbers.get(name)
        return None if value is None else int(value)


class UnanswerableError(Exception):
    """The row lacks what no rule can supply; the message is the reason, for counting."""


@dataclass(slots=True)
class Assumptions:
    """How often each rule filled a gap."""

    counts: Counter[str] = field(default_factory=Counter)

    def note(self, rule: str) -> None:
        self.counts[rule] += 1


def read_rows(
    path: Path, labels: tuple[str, ...] = _LABELS, numbers: tuple[str, ...] = _NUMBERS
) -> list[PublishedRow]:
    """Read the CSV's columns of those names, by default those of training runs. InputError for a
    file that is none, or a cell that is no number."""
    try:
        with path.open(newline="", encoding="utf-8") as stream:
            reader = csv.DictReader(stream)
            header = reader.fieldnames or []
            if not set(header) & set(numbers):
                raise InputError(
                    "the file has none of the columns of measured runs",
                    at=str(path),
                    help="columns are named as in docs/validation.md: model_name, layers, hidden, "
                    "accelerator, accel_count, seq_len, global_batch, step_time_s ...",
                )
            return [
                _row(record, line, path, labels, numbers)
                for line, record in enumerate(reader, start=2)
            ]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(
            f"the file cannot be read as CSV: {error}", at=str(path), help="check the path"
        ) from error


def _row(
    record: dict[str, str | None],
    line: int,
    path: Path,
    label_names: tuple[str, ...],
    number_names: tuple[str, ...],
) -> PublishedRow:
    numbers: dict[str, float] = {}
    for name in number_names:
        cell = (record.get(name) or "").strip()
        if not cell:
            continue
        try:
            value = float(cell)
        except ValueError as error:
            raise InputError(
                f"'{cell}' is not a number", at=f"{path}, line {line}, {name}", help="correct it"
            ) from error
        if not math.isfinite(value) or value < 0:
            raise InputError(
                f"{name} is {cell}",
                at=f"{path}, line {line}",
                help="use a finite, non-negative number, or leave the cell empty",
            )
        numbers[name] = value
    labels = {name: (record.get(name) or "").strip() for name in label_names}
    return PublishedRow(line=line, labels=labels, numbers=numbers)


def row_model(row: PublishedRow, assumed: Assumptions) -> Model:
    """The model of a row from its dimensions; UnanswerableError where the shape is not known."""
    hidden, layers = row.degree("hidden"), row.degree("layers")
    known = _KNOWN_SHAPES.get(row.label("model_name"))
    if known is not None and not (hidden and layers):
        layers, hidden = known
    if hidden and not layers and row.number("params_b"):
        assumed.note("layers from parameters and hidden size")
        table = (row.degree("vocab") or _DEFAULT_VOCAB) * hidden
        layers = round((1e9 * (row.number("params_b") or 0.0) - table) / (12 * hidden**2))
    if not hidden or not layers or layers < 1:
        raise UnanswerableError("model shape unknown")
    heads = row.degree("heads")
    if not heads:
        assumed.note("heads of 128 channels")
        heads = _customary_heads(hidden)
    experts = _row_experts(row, assumed)
    modern = _is_modern(row)
    ffn = row.degree("ffn")
    if not ffn:
        if experts is None:
            assumed.note("feed-forward width of 4 hidden")
        ffn = 4 * hidden if not modern else int(8 * hidden / 3)
    vocab = row.degree("vocab") or 0
    if not vocab:
        assumed.note(f"vocabulary of {_DEFAULT_VOCAB}")
        vocab = _DEFAULT_VOCAB
    encoder = row.label("arch") == "encoder"
    gated = _is_gated(row)
    if gated is None:
        gated = modern
    alibi = "mpt" in row.label("model_name").lower()
    return Model(
        name=row.label("model_name") or f"line {row.line}",
        layers=layers,
        hidden=hidden,
        heads=heads,
        kv_heads=row.degree("kv_heads") or heads,
        head_dim=row.degree("head_dim") or (None if hidden % heads == 0 else hidden // heads),
        ffn=ffn,
        vocab=vocab,
        max_seq_len=row.degree("seq_len") or 2048,
        norm="rmsnorm" if modern else "layernorm",
        activation="swiglu" if gated else "gelu",
        position="alibi" if alibi else "rotary" if modern else "learned",
        bias=not modern,
        tied_embeddings=not modern,
        causal=not encoder,
        experts=experts,
        latent=_row_latent(row),
        window=_GPT_OSS_WINDOW if _family(row) == "gpt-oss" else None,
        global_every=2 if _family(row) == "gpt-oss" else None,
    )


def _customary_heads(hidden: int) -> int:
    """The count nearest to 128 channels a head that divides the hidden size."""
    counts = [n for n in range(1, hidden // 16 + 1) if hidden % n == 0] or [1]
    return min(counts, key=lambda n: abs(math.log(hidden / (n * _HEAD_DIM))))


def _row_experts(row: PublishedRow, assumed: Assumptions) -> Experts | None:
    count = row.degree("experts")
    if not count:
        return None
    top_k, width = row.degree("top_k"), row.degree("moe_ffn") or row.degree("ffn")
    if not top_k or not width:
        raise UnanswerableError("model shape unknown")
    dense_first = _DENSE_FIRST_LAYERS.get(_family(row), 0)
    shared = (row.degree("shared_experts") or 0) * width
    return Experts(count=count, top_k=top_k, ffn=width, shared_ffn=shared, first_layer=dense_first)


def _row_latent(row: PublishedRow) -> LatentAttention | None:
    """DeepSeek-V2/V3 and Kimi K2 attend through latent vectors (arXiv 2412.19437, section 4.2)."""
    family = _family(row)
    if family in ("deepseek-v3", "kimi"):
        return LatentAttention(
            query_rank=1536, kv_rank=512, nope_dim=128, rope_dim=64, value_dim=128
        )
    if family == "deepseek-v2":
        return LatentAttention(
            query_rank=None, kv_rank=512, nope_dim=128, rope_dim=64, value_dim=128
        )
    return None


def _family(row: PublishedRow) -> str:
    name = f"{row.label('model_name')} {row.label('model_family')}".lower().replace("_", "-")
    if "deepseek" in name or "deepseekv" in name:
        return "deepseek-v2" if "v2" in name else "deepseek-v3"
    if "kimi" in name:
        return "kimi"
    if "gpt-oss" in name or "gptoss" in name:
        return "gpt-oss"
    return ""


_GPT_OSS_WINDOW = 128
"""Every other layer of gpt-oss sees so many tokens (its model card, arXiv 2508.10925)."""

_DENSE_FIRST_LAYERS = {"deepseek-v3": 3, "deepseek-v2": 1, "kimi": 1}

_KNOWN_SHAPES: dict[str, tuple[int, int]] = {"GPT3-5B": (24, 4096), "GPT3-20B": (44, 6144)}
"""NeMo's presets of these names (NeMo-Framework-Launcher, conf/training/gpt3)."""

_OLD_BLOCKS = re.compile(
    r"gpt-?3|gpt-?2|gpt-|gpt$|^gpt|bloom|mpt|bert|opt-|megatron|levanter|mt-nlg|glm-130b|maxtext-dense",
    re.IGNORECASE,
)


def _is_modern(row: PublishedRow) -> bool:
    """Gated feed-forward, RMS norm, rotary positions and no biases; GPT-2's block otherwise."""
    if row.label("arch") == "encoder":
        return False
    if row.number("experts"):
        return True
    name = f"{row.label('model_name')} {row.label('model_family')}"
    if "gpt-oss" in name.lower():
        return True
    if _OLD_BLOCKS.search(row.label("model_name")) or _OLD_BLOCKS.search(row.label("model_family")):
        return False
    hidden, ffn = row.number("hidden"), row.number("ffn")
    return not (hidden and ffn and ffn == 4 * hidden)


def _is_gated(row: PublishedRow) -> bool | None:
    """Three feed-forward matrices or two: whichever gives the stated parameters. None where the
    row does not say enough."""
    names = ("layers", "hidden", "ffn", "params_b", "heads")
    known = [row.number(name) for name in names]
    if None in known or row.number("experts"):
        return None
    layers, hidden, ffn, billions, heads = (float(value or 0.0) for value in known)
    head_dim = row.number("head_dim") or hidden / heads
    kv_heads = row.number("kv_heads") or heads
    attention = 2 * hidden * head_dim * (heads + kv_heads)
    vocab = row.number("vocab") or _DEFAULT_VOCAB

    def miss(matrices: int) -> float:
        blocks = layers * (attention + matrices * hidden * ffn)
        return min(abs(math.log((blocks + n * vocab * hidden) / (1e9 * billions))) for n in (1, 2))

    return miss(3) < miss(2)


def measured_step_s(row: PublishedRow, flop_per_step: float) -> float | None:
    """The measured time of a step: as given, from tokens/s, samples/s, or from FLOP/s by the
    row's own way of counting; None where nothing of it was measured."""
    given = row.number("step_time_s")
    if given:
        return given
    batch, seq, count = row.number("global_batch"), row.number("seq_len"), row.number("accel_count")
    if not batch or not seq or not count:
        return None
    per_device = row.number("tokens_per_s_per_accel")
    if per_device:
        return batch * seq / (per_device * count)
    if row.number("samples_per_s"):
        return batch / (row.number("samples_per_s") or 1.0)
    rate = row.number("tflops_per_s_per_accel")
    return flop_per_step / (1e12 * rate * count) if rate else None
