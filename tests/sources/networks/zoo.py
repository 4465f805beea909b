"""Well-known architectures of torchvision and transformers, by name: `zoo:resnet50`.

Every name of `PUBLISHED` and `LANGUAGE` is a function of this module, made when it is asked for.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest

PUBLISHED = {
    "alexnet": "AlexNet_Weights.IMAGENET1K_V1",
    "vgg16": "VGG16_Weights.IMAGENET1K_V1",
    "resnet18": "ResNet18_Weights.IMAGENET1K_V1",
    "resnet50": "ResNet50_Weights.IMAGENET1K_V1",
    "resnext50_32x4d": "ResNeXt50_32X4D_Weights.IMAGENET1K_V1",
    "densenet121": "DenseNet121_Weights.IMAGENET1K_V1",
    "googlenet": "GoogLeNet_Weights.IMAGENET1K_V1",
    "mobilenet_v2": "MobileNet_V2_Weights.IMAGENET1K_V1",
    "mobilenet_v3_large": "MobileNet_V3_Large_Weights.IMAGENET1K_V1",
    "efficientnet_b0": "EfficientNet_B0_Weights.IMAGENET1K_V1",
    "regnet_y_8gf": "RegNet_Y_8GF_Weights.IMAGENET1K_V1",
    "convnext_tiny": "ConvNeXt_Tiny_Weights.IMAGENET1K_V1",
    "swin_t": "Swin_T_Weights.IMAGENET1K_V1",
    "vit_b_16": "ViT_B_16_Weights.IMAGENET1K_V1",
}
"""torchvision's name -> the weights whose page states parameters and multiply-adds at 224 x 224."""

LANGUAGE: dict[str, tuple[str, dict[str, Any]]] = {
    "gpt2": ("causal", {}),
    "llama": ("causal", {"num_hidden_layers": 8}),
    "mistral": ("causal", {"num_hidden_layers": 8}),
    "qwen2": ("causal", {"num_hidden_layers": 8}),
    "qwen3": ("causal", {"num_hidden_layers": 8}),
    "gemma2": ("causal", {"num_hidden_layers": 8}),
    "opt": ("causal", {}),
    "phi": ("causal", {}),
    "bert": ("masked", {}),
    "roberta": ("masked", {}),
    "t5": ("seq2seq", {}),
    "vit": ("image", {}),
}
"""transformers' model_type -> for what, and what differs from its configuration's defaults."""


def _picture_model(name: str) -> Any:
    import torch

    torchvision = _torchvision()
    more = {"init_weights": False} if name == "googlenet" else {}
    if name == "googlenet":
        more["aux_logits"] = False
    return getattr(torchvision.models, name)(**more), torch.zeros(1, 3, 224, 224)


def _language_model(name: str) -> Any:
    import torch
    import transformers

    purpose, changes = LANGUAGE[name]
    config = transformers.AutoConfig.for_model(name, **changes)
    config.use_cache = False
    auto = {
        "causal": transformers.AutoModelForCausalLM,
        "masked": transformers.AutoModelForMaskedLM,
        "seq2seq": transformers.AutoModelForSeq2SeqLM,
        "image": transformers.AutoModelForImageClassification,
    }[purpose]
    model = auto.from_config(config)
    if purpose == "image":
        return model
    tokens = torch.zeros(1, 128, dtype=torch.int64)
    inputs = {"input_ids": tokens}
    if purpose == "seq2seq":
        inputs["decoder_input_ids"] = tokens
    return model, inputs


def _torchvision() -> Any:
    """torchvision. Its compiled operators may be for another build of PyTorch; the networks need
    none of them, so that their shapes need not be registered."""
    import torch

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.library, "register_fake", lambda *_, **__: lambda function: function)
        import torchvision
    return torchvision


def __getattr__(name: str) -> Callable[[], Any]:
    if name in LANGUAGE:
        return partial(_language_model, name)
    if name in PUBLISHED:
        _torchvision()
        return partial(_picture_model, name)
    raise AttributeError(name)
