"""TensorFlow's graph operations by form."""

from __future__ import annotations

from twofold.sources.trace import words

LOOPS = words("While StatelessWhile If StatelessIf PartitionedCall StatefulPartitionedCall")

IGNORED = frozenset({"NoOp", "Assert", "CheckNumerics"})

VIEWS = words(
    """Reshape Transpose Squeeze ExpandDims StridedSlice Slice Split SplitV Unpack Cast BroadcastTo
    StopGradient PreventGradient IdentityN"""
)

_FORMS = {
    "iota": "Range LinSpace",
    "constant": "Const Shape Size Rank Fill ZerosLike OnesLike Placeholder VarHandleOp",
    "triangle": "MatrixBandPart",
    "compare": "Less LessEqual Greater GreaterEqual",
    "product": """MatMul BatchMatMulV2 BatchMatMulV3 BatchMatMul Einsum Conv2D Conv3D
        DepthwiseConv2dNative Conv2DBackpropInput""",
    "embedding": "ResourceGather GatherV2 Gather",
    "add": """Add AddV2 BiasAdd Sub Maximum Minimum AddN Equal NotEqual LogicalAnd LogicalOr
        LogicalNot""",
    "multiply": "Mul RealDiv Div DivNoNan FloorDiv FloorMod SquaredDifference Xdivy",
    "select": "Select SelectV2 ClipByValue",
    "copy": """ConcatV2 Pack Pad PadV2 Tile GatherNd ScatterNd ResizeNearestNeighbor
        ResizeBilinear ReverseV2 DepthToSpace SpaceToDepth MirrorPad OneHot""",
    "relu": "Relu Relu6 LeakyRelu Abs",
    "gelu": "Tanh Erf Erfc",
    "silu": "Sigmoid",
    "exp": "Exp",
    "square": "Square Pow",
    "unary": "Rsqrt Sqrt Neg Log Log1p Expm1 Softplus Elu Selu Sign Floor Ceil Round Reciprocal",
    "sine": "Sin Cos",
    "softmax": "Softmax LogSoftmax",
    "batchnorm": "FusedBatchNormV3 FusedBatchNormV2 FusedBatchNorm",
    "count": "Cumsum",
    "reduce": "Sum Mean Max Min Prod All Any ArgMax ArgMin TopKV2",
    "pool": "MaxPool AvgPool MaxPoolV2 MaxPool3D AvgPool3D",
}

FORM_OF = {word: form for form, names in _FORMS.items() for word in names.split()}
