"""PyTorch's operations by form, and the products behind those that multiply matrices."""

from __future__ import annotations

import math
from typing import Any

from twofold.sources.trace import Product, words

NOT_STEPS = frozenset({"detach", "lift_fresh", "alias", "_local_scalar_dense", "sym_size"})

VIEWS = words(
    """view reshape _unsafe_view t transpose permute expand squeeze unsqueeze slice select split
    split_with_sizes chunk unbind narrow as_strided view_as_complex view_as_real diagonal detach
    alias _reshape_alias unfold movedim numpy_T mT real imag"""
)

_FORMS = {
    "iota": "arange linspace",
    "constant": """zeros ones full empty scalar_tensor zeros_like ones_like full_like
        empty_like new_zeros new_ones new_full new_empty empty_strided new_empty_strided eye
        rand randn randint rand_like randn_like normal uniform""",
    "triangle": "tril triu tril_indices triu_indices",
    "compare": "lt le gt ge",
    "product": """mm addmm bmm baddbmm convolution _convolution addbmm dot mv addmv""",
    "attention": """_scaled_dot_product_flash_attention_for_cpu
        _scaled_dot_product_flash_attention _scaled_dot_product_efficient_attention
        _scaled_dot_product_cudnn_attention _scaled_dot_product_fused_attention_overrideable""",
    "embedding": "embedding _embedding_bag",
    "add": """add sub rsub maximum minimum logical_and logical_or logical_not bitwise_and
        bitwise_or bitwise_not eq ne lerp __and__ __or__ isnan isinf""",
    "multiply": "mul div addcmul addcdiv true_divide floor_divide remainder fmod",
    "select": "where masked_fill",
    "copy": """clone copy cat stack _to_copy contiguous constant_pad_nd pad roll flip index
        index_select gather repeat index_put scatter fill zero pixel_shuffle pixel_unshuffle
        upsample_nearest2d upsample_bilinear2d _upsample_bilinear2d_aa upsample_bicubic2d
        reflection_pad2d replication_pad2d im2col col2im repeat_interleave channel_shuffle
        native_channel_shuffle one_hot masked_scatter select_scatter slice_scatter""",
    "relu": "relu relu6 hardtanh leaky_relu threshold clamp clamp_min clamp_max abs",
    "gelu": "gelu tanh erf",
    "silu": "silu sigmoid hardswish hardsigmoid mish logsigmoid log_sigmoid_forward",
    "exp": "exp exp2",
    "square": "pow square",
    "unary": """rsqrt sqrt reciprocal neg log log1p expm1 softplus elu sign floor ceil round
        log2 rrelu_with_noise prelu _prelu_kernel polar sgn""",
    "sine": "sin cos",
    "softmax": "_softmax _log_softmax _safe_softmax softmax",
    "layernorm": "native_layer_norm native_group_norm",
    "rmsnorm": "rms_norm _fused_rms_norm linalg_vector_norm",
    "batchnorm": """native_batch_norm _native_batch_norm_legit cudnn_batch_norm
        _batch_norm_with_update _native_batch_norm_legit_no_training""",
    "count": "cumsum",
    "reduce": """sum mean amax amin max min var std var_mean argmax argmin prod
        logsumexp any all topk sort cumprod logcumsumexp""",
    "pool": """max_pool2d_with_indices avg_pool2d _adaptive_avg_pool2d adaptive_max_pool2d
        max_pool2d avg_pool1d adaptive_avg_pool1d avg_pool3d max_pool3d_with_indices
        _adaptive_avg_pool3d""",
    "dropout": "native_dropout bernoulli _fused_dropout",
    "loss": "nll_loss_forward nll_loss2d_forward binary_cross_entropy mse_loss",
}

FORM_OF = {word: form for form, names in _FORMS.items() for word in names.split()}


def product_of(word: str, args: Any, results: Any) -> Product | None:
    """The product that an operation computes, of its operands' shapes."""
    if word in ("mm", "addmm"):
        one, two = args[-2:] if word == "mm" else args[1:3]
        return Product(m=_n(one.shape[0]), k=_n(one.shape[1]), n=_n(two.shape[1]))
    if word in ("bmm", "baddbmm"):
        one, two = args[:2] if word == "bmm" else args[1:3]
        batch, m, k = (_n(side) for side in one.shape)
        return Product(batch=batch, m=m, k=k, n=_n(two.shape[2]))
    if word in ("mv", "addmv"):
        matrix = args[0] if word == "mv" else args[1]
        return Product(m=1, n=_n(matrix.shape[0]), k=_n(matrix.shape[1]))
    if word == "dot":
        return Product(m=1, n=1, k=_n(args[0].shape[0]))
    if word in ("convolution", "_convolution"):
        return _convolution(args, results[0])
    if FORM_OF.get(word) == "attention":
        return _attention(args)
    return None


def _convolution(args: Any, result: Any) -> Product:
    """m pixels of the result, n of its channels, k channels read x area, `batch` groups. Where
    transposed, pixels are those of the input and each is spread over the area."""
    picture, weight = args[0], args[1]
    transposed, groups = bool(args[6]), int(args[8])
    area = math.prod(_n(side) for side in weight.shape[2:])
    samples = _n(picture.shape[0])
    if transposed:
        pixels = samples * math.prod(_n(side) for side in picture.shape[2:])
        inputs, outputs = _n(weight.shape[0]) // groups, _n(weight.shape[1])
        return Product(batch=groups, m=pixels, n=outputs * area, k=inputs)
    pixels = samples * math.prod(_n(side) for side in result.shape[2:])
    return Product(
        batch=groups, m=pixels, n=_n(weight.shape[0]) // groups, k=_n(weight.shape[1]) * area
    )


def _attention(args: Any) -> Product:
    query, key, value = args[:3]
    batch, heads, length, channels = (_n(side) for side in query.shape)
    depth = (channels + _n(value.shape[-1])) // 2
    return Product(batch=batch * heads, m=length, n=_n(key.shape[-2]), k=depth)


def _n(side: Any) -> int:
    return int(side)
