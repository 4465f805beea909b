"""PyTorch modules imported without weights."""

from __future__ import annotations

import importlib
from dataclasses import replace

import pytest

from twofold.errors import InputError
from twofold.model import Model, forward_flop, num_parameters, operator_table
from twofold.sources.models import find_model
from twofold.sources.named import executes, import_model

torch = pytest.importorskip("torch", reason="PyTorch is not installed: twofold[torch]")

NETWORKS = "tests.sources.networks.torch_networks"


def target(name: str) -> str:
    return f"torch:{NETWORKS}:{name}"


def flop(model: Model) -> float:
    """Forward, of one sample."""
    return sum(row.repeat * forward_flop(row, 1, 1) for row in operator_table(model))


def counted(name: str, *inputs: int) -> tuple[int, float]:
    """Parameters, and the FLOP that PyTorch's own counter sees on the meta device."""
    from torch.utils.flop_counter import FlopCounterMode

    with torch.device("meta"):
        module = getattr(importlib.import_module(NETWORKS), name)()
        sample = torch.zeros(*inputs)
        with FlopCounterMode(display=False) as counter:
            module(sample)
    return sum(p.numel() for p in module.parameters()), counter.get_total_flops()


@pytest.mark.slow
@pytest.mark.parametrize(("name", "known"), [("llama", "llama-3.2-1b"), ("gpt2", "gpt2")])
def test_a_transformer_is_the_catalogs_model_of_its_shape(name: str, known: str) -> None:
    """Fused attention with rotary positions, and scores written out under a triangle."""
    imported = import_model(target(name))
    assert imported.why_chain is None
    assert not imported.unrecognised
    assert replace(imported.model, name=known) == find_model(known)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["resnet50", "mixer", "unet"])
def test_a_network_is_its_operators(name: str) -> None:
    imported = import_model(target(name))
    parameters, flops = counted(name, 1, 3, 224, 224)
    assert imported.why_chain is not None
    assert not imported.unrecognised
    assert num_parameters(imported.model) == parameters
    assert flop(imported.model) == pytest.approx(flops, rel=1e-6)


@pytest.mark.slow
def test_resnet_50_is_the_catalogs_but_for_fusion() -> None:
    """16 blocks, FLOP and what backward keeps as the hand-written table has them. Eager PyTorch
    keeps the result of each ReLU as well, which the table fuses with the norm before."""
    imported, known = import_model(target("resnet50")).model, find_model("resnet-50")
    assert imported.layers == known.layers == 16
    assert flop(imported) == pytest.approx(flop(known), rel=1e-6)
    assert num_parameters(imported) == num_parameters(known)
    assert kept(imported) == pytest.approx(kept(known), rel=0.05)


def kept(model: Model) -> float:
    return sum(
        row.repeat * row.saved_elements["none"].coefficient
        for row in operator_table(model)
        if "none" in row.saved_elements
    )


@pytest.mark.slow
@pytest.mark.parametrize("name", ["resnet50", "mixer", "unet"])
def test_what_backward_keeps_is_what_autograd_keeps(name: str) -> None:
    """Each storage once, parameters and statistics of norms left out."""
    module = getattr(importlib.import_module(NETWORKS), name)()
    weights = {p.untyped_storage()._cdata for p in module.parameters()}
    seen: dict[int, int] = {}
    held = []

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in weights and tensor.is_floating_point() and tensor.dim() > 1:
            held.append(tensor)
            seen[storage._cdata] = storage.nbytes() // 4
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        module(torch.zeros(1, 3, 64, 64) if name != "mixer" else torch.zeros(1, 3, 224, 224))
    expected = sum(seen.values())
    model = import_model(target("small_" + name if name != "mixer" else name)).model
    assert kept(model) == pytest.approx(expected, rel=0.05)


@pytest.mark.slow
def test_a_recurrent_net_is_few_rows() -> None:
    imported = import_model(target("lstm"))
    model = imported.model
    module, _ = importlib.import_module(NETWORKS).lstm()
    assert num_parameters(model) == sum(p.numel() for p in module.parameters())
    steps, width = 24, 256
    inputs, states = (128 + width) * steps, 2 * width * (steps - 1)  # the first state is zeros
    gates = 2 * 4 * width * (inputs + states)
    assert flop(model) == pytest.approx(gates + 2 * steps * width * 1000, rel=1e-6)
    assert len(model.operators) < 150
    assert not imported.unrecognised


def test_widths_that_come_of_tensors_are_right() -> None:
    """8, 23 and 64; what hangs on initial weights is said to be assumed."""
    imported = import_model(target("computed_widths"))
    assert num_parameters(imported.model) == 8 * 23 + 23 + 23 * 64 + 64
    assert imported.assumed[0].startswith("random values")


def test_an_operation_without_a_rule_is_listed() -> None:
    imported = import_model(target("odd"))
    assert [one.source for one in imported.unrecognised] == ["aten.linalg_inv_ex"]
    assert 0.0 < imported.unrecognised_bytes_fraction < 1.0
    names = [row.name for row in imported.model.operators]
    assert "linalg_inv_ex" in names


@pytest.mark.parametrize(
    ("name", "what", "help"),
    [
        ("chooses", "DataDependentOutputException", "depends on the values"),
        ("counts", "DynamicOutputShapeException", "depends on the values"),
        ("unknown_input", "not known", "return (module, inputs)"),
        ("not_a_module", "returned int", "return the module"),
        ("absent", "has no function 'absent'", "gpt2"),
    ],
)
def test_bad_modules_say_what_to_do(name: str, what: str, help: str) -> None:
    with pytest.raises(InputError) as caught:
        import_model(target(name))
    assert what in caught.value.what
    assert help in (caught.value.help or "")


def test_a_failure_names_the_users_line() -> None:
    with pytest.raises(InputError) as caught:
        import_model(target("chooses"))
    file, _, line = (caught.value.at or "").rpartition(":")
    assert file.endswith("torch_networks.py")
    assert int(line) > 1


@pytest.mark.parametrize(
    ("name", "what"),
    [
        ("torch:no_such_module:build", "there is no module 'no_such_module'"),
        ("torch:no_function", "is not module:function"),
        ("torch:", "names no model"),
    ],
)
def test_bad_names(name: str, what: str) -> None:
    with pytest.raises(InputError, match=what):
        import_model(name)


def test_it_says_what_it_executes() -> None:
    assert executes("torch:a.b:build") == (
        "imports the Python module 'a.b' and calls its function 'build'"
    )
    assert executes("llama-3.1-8b") is None
    assert executes("hf:config.json") is None
