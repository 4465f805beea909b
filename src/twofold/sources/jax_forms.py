"""JAX's primitives by form."""

from __future__ import annotations

from twofold.sources.trace import words

CALLS = words(
    """pjit jit closed_call core_call custom_jvp_call custom_vjp_call custom_vjp_call_jaxpr remat
    remat2 checkpoint custom_lin xla_call"""
)

VIEWS = words(
    """reshape squeeze expand_dims broadcast_in_dim transpose convert_element_type slice split
    stop_gradient copy_p bitcast_convert_type reduce_precision optimization_barrier
    sharding_constraint name real"""
)

_FORMS = {
    "iota": "iota",
    "constant": """random_seed random_bits random_wrap random_unwrap random_fold_in random_split
        threefry2x32 rng_bit_generator shift_right_logical shift_left empty""",
    "compare": "lt le gt ge lt_to le_to",
    "product": "dot_general conv_general_dilated",
    "embedding": "gather",
    "add": "add sub add_any max min and or not xor eq ne is_finite nextafter",
    "multiply": "mul div rem",
    "select": "select_n clamp",
    "copy": """concatenate pad dynamic_slice dynamic_update_slice rev copy scatter scatter-add
        scatter_add scatter_mul roll""",
    "relu": "abs",
    "gelu": "tanh erf erfc erf_inv",
    "silu": "logistic",
    "exp": "exp exp2",
    "square": "square integer_pow pow",
    "unary": "rsqrt sqrt cbrt neg log log1p expm1 sign floor ceil round cosh sinh",
    "sine": "sin cos",
    "count": "cumsum",
    "reduce": """reduce_sum reduce_max reduce_min reduce_prod reduce_and reduce_or argmax argmin
        cumprod cummax cumlogsumexp sort top_k""",
    "pool": """reduce_window_sum reduce_window_max reduce_window_min reduce_window
        select_and_gather_add""",
}

FORM_OF = {word: form for form, names in _FORMS.items() for word in names.split()}
