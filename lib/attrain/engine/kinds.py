"""What kind of operation each of torch's is, under one name whatever its spelling.

An operation is known by its function *object*: torch's own functions, methods, operators and properties are in the
table, and nobody else's of the same name.
"""

from functools import cache

import torch
import torch.nn.functional as F
from torch import Tensor
from torch._ops import OpOverload, OpOverloadPacket

KINDS = {
    # Linear in the activations, with a weight.
    "convolutions": "conv1d conv2d conv3d conv_transpose1d conv_transpose2d conv_transpose3d",
    "linear_layers": "linear",
    # Linear with weights ≥ 0 and no constant of their own: they act alike on a value and on its parts.
    "linear_maps": """avg_pool1d avg_pool2d avg_pool3d adaptive_avg_pool1d adaptive_avg_pool2d adaptive_avg_pool3d
        mean sum cumsum cat concat concatenate stack hstack vstack dstack column_stack
        chunk split split_with_sizes tensor_split hsplit vsplit unsafe_chunk unsafe_split unbind unsafe_split_with_sizes
        getitem narrow select index_select gather take_along_dim take scatter scatter_add index_add index_copy index_put
        select_scatter slice_scatter diagonal_scatter diagonal diag_embed diag tril triu trace
        view view_as reshape reshape_as flatten unflatten unfold fold im2col col2im as_strided
        squeeze unsqueeze expand expand_as broadcast_to broadcast_tensors repeat repeat_interleave tile
        permute transpose t T mT H mH adjoint movedim moveaxis swapaxes swapdims ravel roll flip fliplr flipud rot90
        atleast_1d atleast_2d atleast_3d contiguous clone alias identity as_tensor asarray
        to float double half bfloat16 type type_as cpu cuda pad constant_pad_nd pad_sequence
        reflection_pad1d reflection_pad2d reflection_pad3d replication_pad1d replication_pad2d replication_pad3d
        interpolate upsample upsample_nearest1d upsample_nearest2d upsample_nearest3d
        _upsample_nearest_exact1d _upsample_nearest_exact2d _upsample_nearest_exact3d
        upsample_linear1d upsample_bilinear2d upsample_trilinear3d upsample_bicubic2d grid_sampler grid_sample
        _upsample_bilinear2d_aa _upsample_bicubic2d_aa pixel_shuffle pixel_unshuffle channel_shuffle
        native_channel_shuffle masked_fill masked_select masked_scatter where setitem copy
        roi_align ps_roi_align embedding embedding_bag""",
    # Linear, with complex weights.
    "spectral_maps": """fft ifft rfft irfft fft2 ifft2 rfft2 irfft2 fftn ifftn rfftn irfftn hfft ihfft
        fftshift ifftshift stft istft real imag view_as_real view_as_complex complex conj resolve_conj
        resolve_neg conj_physical""",
    "sums": "add sub subtract rsub neg negative positive",
    # Linear only while one factor is no activation: a number, a constant or a parameter.
    "products": """mul multiply matmul mm bmm mv dot vdot inner outer ger einsum bilinear tensordot kron
        addmm addbmm baddbmm addcmul addmv addr chain_matmul multi_dot grouped_mm _grouped_mm""",
    "quotients": "div divide true_divide",
    "maxima": """max_pool1d max_pool2d max_pool3d adaptive_max_pool1d adaptive_max_pool2d adaptive_max_pool3d
        max_pool1d_with_indices max_pool2d_with_indices max_pool3d_with_indices adaptive_max_pool1d_with_indices
        adaptive_max_pool2d_with_indices adaptive_max_pool3d_with_indices amax""",
    "relus": "relu",
    # One-input nonlinearities on the whole real line.
    "activations": """relu6 leaky_relu prelu _prelu_kernel rrelu elu selu celu gelu silu mish sigmoid tanh
        hardtanh hardsigmoid hardswish softplus softsign log_sigmoid logsigmoid hardshrink softshrink tanhshrink
        threshold clamp clip clamp_min clamp_max""",
    # One-input functions of which some have a domain of their own.
    "functions": """exp expm1 exp2 log log1p log2 log10 sqrt rsqrt reciprocal square pow float_power abs absolute
        erf erfc erfinv sin cos tan sinh cosh asin acos atan asinh acosh atanh arcsin arccos arctan arcsinh arccosh
        arctanh sinc logit sign sgn round floor ceil trunc frac heaviside fix lgamma digamma i0 ndtr log_ndtr
        entr erfcx nan_to_num rad2deg deg2rad""",
    "normalisations": "batch_norm",
    "dropouts": """dropout dropout1d dropout2d dropout3d alpha_dropout feature_dropout feature_alpha_dropout
        native_dropout""",
    "recurrent_layers": "lstm gru rnn_tanh rnn_relu",
    # Leaves the derivative's graph, but not the input's influence.
    "detached": "detach data",
    # Only the shape, the type or the place of their argument matters.
    "templates": """zeros_like ones_like empty_like full_like rand_like randn_like randint_like new_zeros new_ones
        new_empty new_full new_empty_strided""",
    # Facts about a tensor that are no function of its values.
    "queries": """shape size dim ndim ndimension numel nelement dtype device layout is_cuda is_cpu is_mps is_meta
        is_nested is_sparse is_quantized is_complex is_floating_point is_contiguous is_leaf is_conj is_neg is_signed
        is_inference is_pinned is_shared is_same_size is_tensor is_storage stride storage_offset data_ptr element_size
        itemsize nbytes requires_grad retain_grad retains_grad grad grad_fn output_nr _version _base _backward_hooks
        names name result_type can_cast get_device is_xla is_xpu is_mkldnn is_sparse_csr dense_dim sparse_dim has_names
        repr str hash len dir _is_view""",
    # How large their results are depends on values.
    "counts": "nonzero argwhere unique unique_consecutive _unique2 unique_dim bincount",
    # They reach into the backward pass.
    "hooks": "register_hook register_post_accumulate_grad_hook backward",
    # Take values out of a tensor, to where no rule can follow.
    "reads": """item tolist numpy truth float_ int_ index_ complex_ equal allclose is_nonzero array array_wrap contains
        format reversed deepcopy reduce_ex storage untyped_storage _typed_storage dlpack to_dlpack cuda_array_interface
        _local_scalar_dense""",
}  # fmt: skip

KIND_OF = {name: kind for kind, names in KINDS.items() for name in names.split()}

_SPELLED = {
    "truediv": "div", "rtruediv": "rdiv", "radd": "add", "rmul": "mul", "rmatmul": "matmul", "imatmul": "matmul",
    "iadd": "add", "isub": "sub", "imul": "mul", "idiv": "div", "itruediv": "div", "ipow": "pow", "arccos": "acos",
    "bool": "truth", "float": "float_", "int": "int_",
    "complex": "complex_", "index": "index_", "expit": "sigmoid", "clip": "clamp", "absolute": "abs",
    "multiply": "mul", "divide": "div", "true_divide": "div", "subtract": "sub", "negative": "neg", "iter": "unbind",
}  # fmt: skip
_IN_PLACE = frozenset("setitem iadd isub imul idiv itruediv ipow".split())
# Namespaces in which torch keeps its functions, with the prefix that their names have there.
_SPACES = (
    torch, F, Tensor, torch._C.TensorBase, torch._C._VariableFunctions, torch._C._nn, torch._C._special,
    torch._C._linalg, torch._C._fft, torch.special, torch.linalg, torch.fft, torch.functional, torch._VF,
    torch.nn.utils.rnn,
)  # fmt: skip


@cache
def _torchs() -> dict:
    """Torch's own functions -> name, whether they change their first argument."""
    known = {}
    for space in _SPACES:
        for attribute in dir(space):
            function = getattr(space, attribute, None)
            if callable(function) and not isinstance(function, type) and hasattr(function, "__name__"):
                name = _spelled(function.__name__, attribute.startswith("__"))
                if known.get(function, name)[0] not in KIND_OF:  # functions with one body are equal: torch.dsmm is mm
                    known[function] = name
                known.setdefault(function, name)
    return known


def _spelled(name: str, operator: bool = False) -> tuple[str, bool]:
    core = name.removeprefix("special_").removeprefix("fft_")
    if operator and name.startswith("__"):
        core = name.strip("_")
        return _SPELLED.get(core, core), core in _IN_PLACE
    inplace = core.endswith("_") and not core.endswith("__")
    core = core[:-1] if inplace else core
    if core in ("bool", "float", "int", "complex", "index", "iter"):  # the methods, which are no operators
        return core, inplace
    return _SPELLED.get(core, core), inplace


@cache
def names_of_operations() -> frozenset[str]:
    """What a method's table may have a rule for: the kinds, and the names of single operations."""
    return frozenset({*KINDS, *KIND_OF, "last_max", *(name for name, _ in _torchs().values())})


@cache
def _overload(name: str) -> tuple[str, bool] | None:
    """An operator of `torch.ops`, by its qualified name."""
    space, _, core = name.partition("::")
    return _spelled(core.split(".")[0]) if space in ("aten", "torchvision") else None


def named(func) -> tuple[str | None, bool]:
    """The name of one of torch's operations whatever its spelling, and whether it changes its first argument.

    >>> named(torch.Tensor.__iadd__), named(torch.relu_), named(torch.Tensor.T.__get__)
    (('add', True), ('relu', True), ('T', False))
    >>> named(lambda input: input)
    (None, False)
    """
    if isinstance(func, (OpOverload, OpOverloadPacket)):
        return _overload(getattr(func, "_qualified_op_name", None) or func._schema.name) or (None, False)
    if getattr(func, "__name__", None) == "__get__":
        name = getattr(func.__self__, "__name__", None) or getattr(func.__self__.fget, "__name__", "")
        return (name, False) if getattr(Tensor, name, None) == func.__self__ else (None, False)
    try:
        return _torchs().get(func, (None, False))
    except TypeError:  # not hashable
        return None, False
