"""A network with its weights: of a Hugging Face folder, of a training run, or at random."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import torch
from torch import nn

from twofold.errors import EnvironmentLack, InputError
from twofold.runtime.serve.folder import read_config
from twofold.runtime.serve.huggingface import check_config, load_safetensors
from twofold.runtime.serve.int8 import with_int8_weights
from twofold.runtime.serve.network import ServingNetwork
from twofold.runtime.serve.rotary import Rotary, rotary_of
from twofold.serving_document import ServingDocument

_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
_DEVIATION = 0.02


def load_network(document: ServingDocument, device: torch.device) -> ServingNetwork:
    """In the plan's precisions, on the device."""
    dtype = dtype_of(document)
    weights = document.weights
    if weights != "random" and not Path(str(weights)).is_dir():
        raise InputError(
            f"there is no folder '{weights}'", at="weights", help="plan again from where it is now"
        )
    config = None if weights in (None, "random") else read_config(Path(str(weights)))
    network = _build(document, config)
    network.to_empty(device=device).to(dtype)
    network.tie()
    network.fill_buffers(device)
    if weights == "random":
        _fill_at_random(network, document.seed)
    elif config is not None:
        load_safetensors(network, Path(str(weights)), config)
    else:
        _load_run(network, Path(str(weights)))
    if document.plan.weight_precision == "int8":
        with_int8_weights(network)
    return network.requires_grad_(False).eval()


def dtype_of(document: ServingDocument) -> torch.dtype:
    return _DTYPES[document.plan.precision]


def find_device() -> torch.device:
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def _build(document: ServingDocument, config: dict[str, Any] | None) -> ServingNetwork:
    with torch.device("meta"):
        if config is None:
            return ServingNetwork(document.model, Rotary())
        at = f"{document.weights}/config.json"
        check_config(config, at=at)
        eps = config.get("rms_norm_eps")
        try:
            return ServingNetwork(document.model, rotary_of(config, at=at), float(eps or 1e-6))
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise InputError(
                f"the config cannot be read: {error!r}", at=at, help="fetch the file again"
            ) from error


def _fill_at_random(network: nn.Module, seed: int) -> None:
    """Normal with a deviation of 0.02 (GPT-2's); norms 1, biases 0. For planning and load tests."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if parameter.ndim < 2 or "head_norm" in name:
                parameter.fill_(0.0 if name.endswith("bias") else 1.0)
            else:
                drawn = torch.empty(parameter.shape).normal_(0, _DEVIATION, generator=generator)
                parameter.copy_(drawn)


def _load_run(network: ServingNetwork, folder: Path) -> None:
    """The newest checkpoint of a training run, by its own names."""
    from torch.distributed.checkpoint.api import CheckpointException
    from torch.distributed.checkpoint.state_dict_loader import load

    whole = sorted((folder / "checkpoints").glob("step-*"))
    if not whole:
        raise InputError(
            "the folder holds neither safetensors nor a training run's checkpoint",
            at=str(folder),
            help="name a model's folder, or train first: twofold run plan.json",
        )
    state = {"network": network.state_dict()}
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="torch.distributed is disabled")
            load(state, checkpoint_id=whole[-1], no_dist=True)
    except (OSError, ValueError, RuntimeError, CheckpointException) as error:
        raise InputError(
            f"the checkpoint cannot be read: {error}",
            at=str(whole[-1]),
            help="plan again from the run's folder; the model must be the one that was trained",
        ) from error


def refuse_out_of_memory(error: torch.OutOfMemoryError) -> EnvironmentLack:
    return EnvironmentLack(
        f"the device is out of memory: {error}",
        help="plan again with a lower memory_fraction or fewer sequences",
    )
