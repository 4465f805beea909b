"""Published serving rows: layouts from their notes, the data's traps, and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from twofold.calibrate.inference_rows import (
    PRODUCT_OF_EXPERTS,
    ServingSetting,
    engine_family,
    is_serving_file,
    read_serving_rows,
    serving_setting,
)
from twofold.calibrate.published import Assumptions, UnanswerableError
from twofold.catalog import find_node

ROWS = Path(__file__).parents[2] / "benchmarks" / "data" / "inference_measured.csv"
BASE = {
    "accel_key": "h200_sxm", "model": "Llama-3.3-70B", "vendor": "nvidia", "weight_prec": "fp8",
    "engine": "vLLM", "scenario": "online closed loop", "mode": "agg", "isl": "1024",
    "osl": "1024", "concurrency": "16", "parallel_note": "attn tp8 dp1 pp1; moe tp8 ep1",
}  # fmt: skip


def _setting(tmp_path: Path, **changes: str) -> tuple[ServingSetting, Assumptions]:
    cells = BASE | changes
    path = tmp_path / "rows.csv"
    path.write_text(",".join(cells) + "\n" + ",".join(f'"{v}"' for v in cells.values()) + "\n")
    assumed = Assumptions()
    (row,) = read_serving_rows(path)
    return serving_setting(row, find_node, assumed), assumed


def test_a_plain_row(tmp_path: Path) -> None:
    setting, assumed = _setting(tmp_path)
    (layout,) = setting.layouts
    assert (layout.tensor, layout.groups, layout.expert, layout.pipeline) == (8, 1, 1, 1)
    assert (layout.precision, layout.kv_precision) == ("fp8", "fp8")
    assert (setting.model.name, setting.users) == ("llama-3.3-70b", 16.0)
    assert assumed.counts["cache in 8 bits"] == 1


def test_the_product_of_expert_degrees_is_read_as_one_of_them(tmp_path: Path) -> None:
    note = "attn tp1 dp64 pp1; moe tp8 ep8"
    setting, assumed = _setting(tmp_path, model="DeepSeek-R1", parallel_note=note)
    (layout,) = setting.layouts
    assert (layout.tensor, layout.groups, layout.expert) == (8, 8, 8)
    assert assumed.counts[PRODUCT_OF_EXPERTS] == 1


def test_prefill_and_decode_apart(tmp_path: Path) -> None:
    note = "prefill 4x(tp1 dp4 pp1 moe_tp1 ep4) b1; decode 2x(tp8 dp1 pp1 moe_tp1 ep8) b64"
    setting, _ = _setting(tmp_path, model="DeepSeek-R1", mode="disagg", parallel_note=note)
    assert setting.prefill is not None
    assert (setting.prefill_replicas, setting.replicas) == (4, 2)
    assert (setting.prefill.tensor, setting.prefill.groups) == (4, 4)
    assert (setting.layouts[0].tensor, setting.layouts[0].expert) == (8, 8)


def test_lengths_of_inferencex_are_nine_tenths(tmp_path: Path) -> None:
    kind = "nominal (InferenceMAX random-range-ratio 0.8: real lengths 0.8-1.0 x nominal)"
    setting, _ = _setting(tmp_path, len_kind=kind)
    assert setting.input_tokens == pytest.approx(0.9 * 1024)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"model": "Nobody-7B"}, "model unknown"),
        ({"accel_key": "abacus"}, "device unknown"),
        ({"concurrency": ""}, "concurrency unknown"),
        ({"isl": ""}, "lengths unknown"),
        ({"mode": "disagg", "parallel_note": "prefill x(tp8)"}, "how many prefill"),
        ({"mode": "disagg-decode"}, "one phase"),
        ({"parallel_note": "attn tp12 dp1 pp1; moe tp12 ep1"}, "does not divide"),
        ({"spec_decode": "draft model"}, "speculative"),
    ],
)
def test_what_is_not_said_is_refused(tmp_path: Path, changes: dict[str, str], reason: str) -> None:
    with pytest.raises(UnanswerableError, match=reason):
        _setting(tmp_path, **changes)


def test_devices_without_narrow_products_read_narrow_weights(tmp_path: Path) -> None:
    setting, _ = _setting(tmp_path, accel_key="a100_80")
    assert (setting.layouts[0].precision, setting.layouts[0].weight_precision) == ("bf16", "fp8")


def test_files_are_told_apart() -> None:
    assert is_serving_file(ROWS)
    assert not is_serving_file(ROWS.with_name("training_measured.csv"))


def test_engines_by_what_tables_call_them() -> None:
    assert engine_family("TensorRT 10.11, CUDA 12.9") == "tensorrt-llm"
    assert engine_family("vLLM 0.6.5.dev964+mlperf50") == "vllm"
    assert engine_family("Mango LLMBoost") == "other"
