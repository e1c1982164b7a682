"""A device that torch takes for a real one, to find on any machine what CUDA would refuse.

`torch.device("pretended")` has torch's own dispatch, autograd (backward passes in a thread of the device's) and
autocast. Its memory is the CPU's, and the CPU computes; but it refuses what CUDA refuses:

- an operation on tensors of both devices; but for numbers, tensors without dimensions, where CUDA takes them
- a CPU generator for its tensors
- `.numpy()`, and with it numpy and matplotlib, without `.cpu()`
- operations that torch has no CUDA kernel of
- under `torch.use_deterministic_algorithms(True)`, operations of which CUDA has no deterministic form

What it cannot show: other rounding, memory, time, and errors of CUDA's own kernels.
"""

import ctypes
import functools
from functools import cache, wraps

import torch
from torch import Tensor
from torch.utils._pytree import tree_flatten, tree_map_only, tree_unflatten
from torch.utils.backend_registration import _DummyBackendModule, _setup_privateuseone_for_python_backend

NAME = "pretended"
aten = torch.ops.aten

# What CUDA's kernels call alertNotDeterministic for; its documentation: torch.use_deterministic_algorithms.
NONDETERMINISTIC = frozenset(
    """_adaptive_avg_pool2d_backward _adaptive_avg_pool3d_backward adaptive_max_pool2d_backward avg_pool3d_backward
    upsample_linear1d_backward upsample_bilinear2d_backward upsample_bicubic2d_backward upsample_trilinear3d_backward
    reflection_pad1d_backward reflection_pad2d_backward reflection_pad3d_backward nll_loss2d_forward
    grid_sampler_2d_backward grid_sampler_3d_backward max_unpool2d put_ histc scatter_reduce _ctc_loss_backward
    """.split()
)
# Pointwise operations take numbers of the CPU; so do these, in the place of a value.
TAKES_NUMBERS = frozenset("fill_ masked_fill masked_fill_ index_put index_put_ _index_put_impl_ where".split())
# An index may be on the CPU.
TAKES_INDICES = frozenset("index index_put index_put_ _index_put_impl_".split())


# ---------------------------------------------------------------- one memory, two devices

_pointer = ctypes.pythonapi.PyCapsule_GetPointer
_pointer.restype, _pointer.argtypes = ctypes.c_void_p, [ctypes.py_object, ctypes.c_char_p]
_CPU, _EXTENSION = 1, 12  # DLPack's numbers of devices; torch takes the second for its "private use" device


def _as_device(tensor: Tensor, number: int) -> Tensor:
    """The same memory as a tensor of the other device: DLPack's description of it, with the device's number changed."""
    capsule = torch._C._to_dlpack(tensor.resolve_conj().resolve_neg())
    ctypes.c_int32.from_address(_pointer(capsule, b"dltensor") + ctypes.sizeof(ctypes.c_void_p)).value = number
    return torch._C._from_dlpack(capsule)


def _here(value) -> bool:
    return isinstance(value, Tensor) and value.device.type == NAME


def _on_cpu(value):
    return (
        _as_device(value, _CPU) if _here(value) else torch.device("cpu") if isinstance(value, torch.device) else value
    )


# ---------------------------------------------------------------- operations


def _unseen(kernel):
    """A kernel whose own operations no `TorchFunctionMode` sees, as none sees a real kernel's."""

    @wraps(kernel)
    def run(*args, **kwargs):
        with torch._C.DisableTorchFunction():
            return kernel(*args, **kwargs)

    return run


def _operation(op, *args, **kwargs):
    """Any operation that has no kernel of its own: checked, and computed by the CPU."""
    name = op._schema.name.removeprefix("aten::")
    _check(op, name, tree_flatten((args, kwargs))[0], args)
    given, tree = tree_flatten((_with_numbers(op, args), kwargs))
    moved = list(map(_on_cpu, given))
    empty = [i for i, g in enumerate(given) if _here(g) and g is kwargs.get("out") and g.shape == (0,)]
    for i in empty:  # to be resized, which memory from elsewhere cannot be
        moved[i] = torch.empty(0, dtype=given[i].dtype)
    cpu_args, cpu_kwargs = tree_unflatten(moved, tree)
    out = _norm(op, cpu_args) if name in _NORMS else op(*cpu_args, **cpu_kwargs)
    for i in empty:
        given[i].data = _as_device(moved[i], _EXTENSION)
    own = {id(m): g for m, g in zip(moved, given) if isinstance(g, Tensor)}  # what is changed in place stays itself
    return tree_map_only(Tensor, lambda t: own[id(t)] if id(t) in own else _as_device(t, _EXTENSION), out)


def _with_numbers(op, args: tuple) -> tuple:
    """Python's numbers as tensors, where the operation wants tensors; torch has unpacked them for us."""
    kinds = [str(a.type) for a in op._schema.arguments]
    dtype = next((a.dtype for a in args if isinstance(a, Tensor) and a.is_floating_point()), None)
    number = lambda v: torch.tensor(v, dtype=dtype if isinstance(v, float) else None, device="cpu")  # noqa: E731
    return tuple(
        number(a) if isinstance(a, (bool, int, float)) and k in ("Tensor", "Optional[Tensor]") else a
        for a, k in zip(args, kinds)
    )


@cache
def _pointwise(packet) -> bool:
    """Whether one of an operation's forms says so; those with `out` do not."""
    return any(torch.Tag.pointwise in getattr(packet, overload).tags for overload in packet.overloads())


def _check(op, name: str, given: list, args: tuple) -> None:
    """Raise as CUDA does."""
    for value in given:
        if isinstance(value, torch.Generator) and value.device.type != NAME:
            raise RuntimeError(f"Expected a '{NAME}' device type for generator but found '{value.device.type}'")
    numbers = _pointwise(op.overloadpacket) or name.split(".")[0] in TAKES_NUMBERS
    indices = tree_flatten(args[1])[0] if name in TAKES_INDICES else ()
    for value in given:
        if not isinstance(value, Tensor) or _here(value) or any(value is i for i in indices):
            continue
        if value.ndim or not numbers or (value is args[0] and op._schema.name.endswith("_")):
            found = f"{NAME}:0 and {value.device}"
            raise RuntimeError(
                f"Expected all tensors to be on the same device, but found at least two devices, {found}! ({op})"
            )
    if torch.version.cuda and not torch._C._dispatch_has_computed_kernel_for_dispatch_key(op.name(), "CUDA"):
        raise NotImplementedError(f"Could not run '{op}' with arguments from the 'CUDA' backend")
    loose = name in NONDETERMINISTIC or (name == "bincount" and any(map(_here, given[1:])))
    strict = torch.are_deterministic_algorithms_enabled() and not torch.is_deterministic_algorithms_warn_only_enabled()
    if loose and strict:
        raise RuntimeError(f"{name} does not have a deterministic implementation")


_NORMS = {"native_batch_norm": 3, "native_batch_norm_backward": 3}


def _norm(op, args: tuple):
    """As CUDA's batch norm: of halves too, μ and 1/σ are float32, where the CPU's have the weight's type."""
    x = args[_NORMS[op._schema.name.removeprefix("aten::")] - 3]
    if x.dtype not in (torch.float16, torch.bfloat16):
        return op(*args)
    weight = args[1] if op is aten.native_batch_norm.default else args[2]
    wide = [a.float() if isinstance(a, Tensor) else a for a in args]
    first, *rest = op(*wide)
    if op is aten.native_batch_norm.default:
        for running, new in zip(args[3:5], wide[3:5]):
            if running is not None:
                running.copy_(new)
        return first.to(x.dtype), *rest
    own = x.dtype if weight is None else weight.dtype
    return first.to(x.dtype), *(None if r is None else r.to(own) for r in rest)


def _copy(source: Tensor, target: Tensor, non_blocking: bool = False) -> Tensor:
    """Between the devices, or within one."""
    _on_cpu(target).copy_(_on_cpu(source))
    return target


def _view(op):
    """A view, or a tensor set to a storage: the CPU's kernel never looks at the memory, and keeps the device."""
    cpu = torch._C.DispatchKeySet(torch._C.DispatchKey.CPU)
    return lambda *args: op.redispatch(cpu, *args)


def _zeros(size, *, dtype=None, **_):
    """The zeros of a derivative, which on the CPU are without memory."""
    return _as_device(torch.zeros(size, dtype=dtype), _EXTENSION)


def _convolution(op):
    def call(*args):
        _check(op, op._schema.name, tree_flatten(args)[0], args)
        return tree_map_only(Tensor, lambda t: _as_device(t, _EXTENSION), op(*map(_on_cpu, args)))

    return call


def _convolution_backward(g, x, weight, *geometry):
    return _convolution(aten.convolution_backward.default)(g, x, weight, None, *geometry[:-1], geometry[-1])


def _lstm_cell(from_input, from_state, c, *biases):
    """Forward only, in the order that CUDA's fused kernels have."""
    i, f, g, o = sum((from_input, from_state, *(b for b in biases if b is not None))).chunk(4, 1)
    c = f.sigmoid() * c + i.sigmoid() * g.tanh()
    return o.sigmoid() * c.tanh(), c, from_input


def _gru_cell(from_input, from_state, h, b_input=None, b_state=None):
    parts = [v if b is None else v + b for v, b in ((from_input, b_input), (from_state, b_state))]
    (r_x, z_x, n_x), (r_h, z_h, n_h) = (v.chunk(3, 1) for v in parts)
    z, n = (z_x + z_h).sigmoid(), (n_x + (r_x + r_h).sigmoid() * n_h).tanh()
    return n + z * (h - n), from_input


@functools.wraps(Tensor.__deepcopy__)
def _deepcopy(tensor: Tensor, memo: dict) -> Tensor:
    """`copy.deepcopy`, which goes by storages, and a storage of ours cannot be made from Python."""
    if tensor.device.type != NAME:
        return _ordinary_deepcopy(tensor, memo)
    if id(tensor) not in memo:
        memo[id(tensor)] = tensor.detach().clone().requires_grad_(tensor.requires_grad)
    return memo[id(tensor)]


# ---------------------------------------------------------------- autocast, by CUDA's lists as far as networks use them

HALVED = (
    "conv1d conv2d conv3d conv_transpose1d conv_transpose2d.input conv_transpose3d.input linear matmul mm bmm addmm"
)
WIDENED = """exp log log1p log2 log10 pow.Tensor_Scalar pow.Tensor_Tensor rsqrt reciprocal softplus sum sum.dim_IntList
    prod cumsum norm.Scalar norm.ScalarOpt_dim layer_norm group_norm softmax.int log_softmax.int nll_loss
    binary_cross_entropy_with_logits cosine_similarity"""
_AUTOCAST = torch._C.DispatchKeySet(torch._C.DispatchKey.AutocastPrivateUse1)


def _cast(op, halve: bool):
    def run(*args, **kwargs):
        dtype = torch.get_autocast_dtype(NAME) if halve else torch.float32
        cast = lambda t: t.to(dtype) if t.is_floating_point() and t.dtype != torch.float64 else t  # noqa: E731
        with torch._C._ExcludeDispatchKeyGuard(_AUTOCAST), torch._C.DisableTorchFunction():
            args, kwargs = tree_map_only(Tensor, cast, (args, kwargs))
            return op(*args, **kwargs)

    return run


class _Module(_DummyBackendModule):
    """What `torch.pretended` is."""

    def get_amp_supported_dtype(self):
        return [torch.float16, torch.bfloat16]

    def synchronize(self, device=None):
        pass


KERNELS = {
    "_copy_from": _copy,
    "as_strided": _view(aten.as_strided.default),
    "view": _view(aten.view.default),
    "_reshape_alias": _view(aten._reshape_alias.default),
    "unfold": _view(aten.unfold.default),
    "set_.source_Storage": _view(aten.set_.source_Storage),
    "set_.source_Storage_storage_offset": _view(aten.set_.source_Storage_storage_offset),
    "_efficientzerotensor": _zeros,
    "_thnn_fused_lstm_cell": _lstm_cell,
    "_thnn_fused_gru_cell": _gru_cell,
    "convolution_overrideable": _convolution(aten.convolution.default),
    "convolution_backward_overrideable": _convolution_backward,
}

_setup_privateuseone_for_python_backend(NAME, backend_module=_Module())
_fallback = torch.library.Library("_", "IMPL")
_fallback.fallback(_unseen(_operation), "PrivateUse1")
_own = torch.library.Library("aten", "IMPL")
for _name, _kernel in KERNELS.items():
    _own.impl(_name, _unseen(_kernel), "PrivateUse1")
_fallback.fallback(torch.library.fallthrough_kernel, "AutocastPrivateUse1")
for _name in (HALVED + " " + WIDENED).split():
    _packet, _, _overload = _name.partition(".")
    _op = getattr(getattr(aten, _packet), _overload or "default")
    _own.impl(_name, _cast(_op, _name in HALVED.split()), "AutocastPrivateUse1")
_ordinary_deepcopy, Tensor.__deepcopy__ = Tensor.__deepcopy__, _deepcopy
