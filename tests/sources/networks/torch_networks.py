"""Networks in PyTorch that tests import by name."""

from __future__ import annotations

import itertools
import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

LAYERS, HIDDEN, HEADS, FFN, VOCAB, SEQ = 4, 256, 8, 1024, 8192, 128


class _DecoderLayer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(HIDDEN), nn.LayerNorm(HIDDEN)
        self.query, self.key = nn.Linear(HIDDEN, HIDDEN), nn.Linear(HIDDEN, HIDDEN)
        self.value, self.output = nn.Linear(HIDDEN, HIDDEN), nn.Linear(HIDDEN, HIDDEN)
        self.up, self.down = nn.Linear(HIDDEN, FFN), nn.Linear(FFN, HIDDEN)

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm1(x)
        parts = [layer(y) for layer in (self.query, self.key, self.value)]
        query, key, value = (p.unflatten(-1, (HEADS, -1)).transpose(1, 2) for p in parts)
        y = functional.scaled_dot_product_attention(query, key, value, is_causal=True)
        x = x + self.output(y.transpose(1, 2).flatten(2))
        return x + self.down(functional.gelu(self.up(self.norm2(x))))


def decoder() -> nn.Module:
    """The decoder that is written in three frameworks."""
    layers = [_DecoderLayer() for _ in range(LAYERS)]
    head = nn.Linear(HIDDEN, VOCAB, bias=False)
    return nn.Sequential(nn.Embedding(VOCAB, HIDDEN), *layers, nn.LayerNorm(HIDDEN), head)


class _Root(nn.Module):
    """Root-mean-square norm, written out."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-5) * self.weight


class _LlamaLayer(nn.Module):
    def __init__(self, hidden: int, heads: int, kv_heads: int, ffn: int) -> None:
        super().__init__()
        size = hidden // heads
        self.groups, self.size = heads // kv_heads, size
        self.norm1, self.norm2 = _Root(hidden), _Root(hidden)
        self.query = nn.Linear(hidden, hidden, bias=False)
        self.key = nn.Linear(hidden, kv_heads * size, bias=False)
        self.value = nn.Linear(hidden, kv_heads * size, bias=False)
        self.output = nn.Linear(hidden, hidden, bias=False)
        self.gate = nn.Linear(hidden, ffn, bias=False)
        self.up = nn.Linear(hidden, ffn, bias=False)
        self.down = nn.Linear(ffn, hidden, bias=False)

    def forward(self, x: Tensor, cosine: Tensor, sine: Tensor) -> Tensor:
        def turn(part: Tensor) -> Tensor:
            left, right = part.chunk(2, -1)
            return part * cosine + torch.cat([-right, left], -1) * sine

        y = self.norm1(x)
        parts = [layer(y) for layer in (self.query, self.key, self.value)]
        query, key, value = (p.unflatten(-1, (-1, self.size)).transpose(1, 2) for p in parts)
        key = turn(key).repeat_interleave(self.groups, 1)
        value = value.repeat_interleave(self.groups, 1)
        y = functional.scaled_dot_product_attention(turn(query), key, value, is_causal=True)
        x = x + self.output(y.transpose(1, 2).flatten(2))
        y = self.norm2(x)
        return x + self.down(functional.silu(self.gate(y)) * self.up(y))


class _Llama(nn.Module):
    def __init__(
        self, layers: int, hidden: int, heads: int, kv_heads: int, ffn: int, vocab: int
    ) -> None:
        super().__init__()
        self.max_seq_len, self.size = 131072, hidden // heads
        self.table = nn.Embedding(vocab, hidden)
        parts = [_LlamaLayer(hidden, heads, kv_heads, ffn) for _ in range(layers)]
        self.layers, self.norm = nn.ModuleList(parts), _Root(hidden)
        self.head = nn.Linear(hidden, vocab, bias=False)
        self.head.weight = self.table.weight

    def forward(self, tokens: Tensor) -> Tensor:
        steps = 5e5 ** (-torch.arange(0, self.size, 2) / self.size)
        angles = torch.outer(torch.arange(tokens.shape[1]), steps).repeat(1, 2)
        x = self.table(tokens)
        for layer in self.layers:
            x = layer(x, angles.cos(), angles.sin())
        return self.head(self.norm(x))


def llama() -> nn.Module:
    """The shape of llama-3.2-1b."""
    return _Llama(16, 2048, 32, 8, 8192, 128256)


class _GptLayer(nn.Module):
    """As nanoGPT: one product for queries, keys and values, scores written out."""

    def __init__(self, hidden: int, heads: int, longest: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(hidden), nn.LayerNorm(hidden)
        self.attend, self.output = nn.Linear(hidden, 3 * hidden), nn.Linear(hidden, hidden)
        self.up, self.down = nn.Linear(hidden, 4 * hidden), nn.Linear(4 * hidden, hidden)
        self.register_buffer("mask", torch.tril(torch.ones(longest, longest)))

    def forward(self, x: Tensor) -> Tensor:
        length, hidden = x.shape[1:]
        parts = self.attend(self.norm1(x)).split(hidden, 2)
        query, key, value = (p.unflatten(-1, (self.heads, -1)).transpose(1, 2) for p in parts)
        scores = query @ key.transpose(-2, -1) / math.sqrt(hidden // self.heads)
        scores = scores.masked_fill(self.mask[:length, :length] == 0, -math.inf).softmax(-1)
        x = x + self.output((scores @ value).transpose(1, 2).flatten(2))
        return x + self.down(functional.gelu(self.up(self.norm2(x))))


class _Gpt(nn.Module):
    def __init__(self, layers: int, hidden: int, heads: int, vocab: int, longest: int) -> None:
        super().__init__()
        self.table, self.places = nn.Embedding(vocab, hidden), nn.Embedding(longest, hidden)
        parts = [_GptLayer(hidden, heads, longest) for _ in range(layers)]
        self.layers, self.norm = nn.Sequential(*parts), nn.LayerNorm(hidden)
        self.head = nn.Linear(hidden, vocab, bias=False)
        self.head.weight = self.table.weight

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.table(tokens) + self.places(torch.arange(tokens.shape[1]))
        return self.head(self.norm(self.layers(x)))


def gpt2() -> nn.Module:
    """The shape of gpt2."""
    return _Gpt(12, 768, 12, 50257, 1024)


class _Bottleneck(nn.Module):
    def __init__(self, inputs: int, width: int, stride: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            *_conv(inputs, width, 1, 1),
            nn.ReLU(inplace=True),
            *_conv(width, width, 3, stride),
            nn.ReLU(inplace=True),
            *_conv(width, 4 * width, 1, 1),
        )
        same = stride == 1 and inputs == 4 * width
        self.short = nn.Identity() if same else nn.Sequential(*_conv(inputs, 4 * width, 1, stride))

    def forward(self, x: Tensor) -> Tensor:
        return functional.relu(self.body(x) + self.short(x), inplace=True)


def _conv(inputs: int, outputs: int, side: int, stride: int) -> tuple[nn.Module, nn.Module]:
    layer = nn.Conv2d(inputs, outputs, side, stride, side // 2, bias=False)
    return layer, nn.BatchNorm2d(outputs)


def resnet50() -> nn.Module:
    """As torchvision's (He et al. 2015, with the stride in the 3 x 3 convolution)."""
    parts: list[nn.Module] = [*_conv(3, 64, 7, 2), nn.ReLU(inplace=True), nn.MaxPool2d(3, 2, 1)]
    inputs = 64
    for stage, count in enumerate((3, 4, 6, 3)):
        width = 64 * 2**stage
        for block in range(count):
            parts.append(_Bottleneck(inputs, width, 2 if stage and not block else 1))
            inputs = 4 * width
    return nn.Sequential(*parts, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(inputs, 1000))


class _Mixer(nn.Module):
    """A block of an MLP mixer (Tolstikhin et al. 2021)."""

    def __init__(self, places: int, width: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.across = nn.Sequential(
            nn.Linear(places, width // 2), nn.GELU(), nn.Linear(width // 2, places)
        )
        self.along = nn.Sequential(
            nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width)
        )

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.across(self.norm1(x).transpose(1, 2)).transpose(1, 2)
        return x + self.along(self.norm2(x))


def mixer() -> nn.Module:
    """The shape of Mixer-S/16, but for its head over the mean."""
    patches = nn.Sequential(nn.Conv2d(3, 512, 16, 16), nn.Flatten(2), _Turned())
    return nn.Sequential(patches, *[_Mixer(196, 512) for _ in range(8)], nn.LayerNorm(512))


class _Turned(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.transpose(1, 2)


class _UNet(nn.Module):
    """Ronneberger et al. 2015, padded, with three levels."""

    def __init__(self, width: int) -> None:
        super().__init__()
        sizes = [3, width, 2 * width, 4 * width, 8 * width]
        self.downs = nn.ModuleList(_double(a, b) for a, b in itertools.pairwise(sizes))
        self.ups = nn.ModuleList(_double(2 * size, size) for size in sizes[3:0:-1])
        self.widens = nn.ModuleList(
            nn.ConvTranspose2d(2 * size, size, 2, 2) for size in sizes[3:0:-1]
        )
        self.head = nn.Conv2d(width, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        kept = []
        for down in self.downs[:-1]:
            x = down(x)
            kept.append(x)
            x = functional.max_pool2d(x, 2)
        x = self.downs[-1](x)
        for widen, up in zip(self.widens, self.ups, strict=True):
            x = up(torch.cat([widen(x), kept.pop()], 1))
        return self.head(x)


def _double(inputs: int, outputs: int) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, padding=1),
        nn.ReLU(inplace=True),
        nn.Conv2d(outputs, outputs, 3, padding=1),
        nn.ReLU(inplace=True),
    )


def unet() -> nn.Module:
    return _UNet(64)


class _Recurrent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(1000, 128)
        self.body = nn.LSTM(128, 256, 2, batch_first=True)
        self.head = nn.Linear(256, 1000)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.head(self.body(self.table(tokens))[0])


def lstm() -> tuple[nn.Module, Tensor]:
    return _Recurrent(), torch.zeros(1, 24, dtype=torch.int64)


class _Chooses(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(8, 8)

    def forward(self, x: Tensor) -> Tensor:
        y = self.layer(x)
        return self.layer(y) if y.sum() > 0 else y


def chooses() -> nn.Module:
    """What it does depends on values: it cannot be traced."""
    return _Chooses()


class _Counts(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x[x > 0]


def counts() -> tuple[nn.Module, Tensor]:
    """Its result's shape depends on values."""
    return nn.Sequential(nn.Linear(8, 8), _Counts()), torch.zeros(1, 8)


def unknown_input() -> nn.Module:
    """No layer says what it takes."""
    return _Root(8)


class _Odd(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(64, 64)

    def forward(self, x: Tensor) -> Tensor:
        return torch.linalg.inv(self.layer(x))


def odd() -> tuple[nn.Module, Tensor]:
    """An operation without a rule."""
    return _Odd(), torch.zeros(1, 64, 64)


def not_a_module() -> Any:
    return 3


def small_resnet50() -> tuple[nn.Module, Tensor]:
    return resnet50(), torch.zeros(1, 3, 64, 64)


def small_unet() -> tuple[nn.Module, Tensor]:
    return unet(), torch.zeros(1, 3, 64, 64)


def computed_widths() -> nn.Module:
    """Widths that come of tensors, as RegNet's do, and a rate that comes of random ones."""
    widths = torch.pow(2.0, torch.arange(3) * 1.5 + 3).round().int().tolist()
    layers = [nn.Linear(a, b) for a, b in itertools.pairwise(widths)]
    rate = 0.1 if float(layers[0].weight.detach().sum()) > 1e9 else 0.0
    return nn.Sequential(*layers, nn.Dropout(rate))
