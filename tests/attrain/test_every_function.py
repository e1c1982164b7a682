"""Every function that torch lets be overridden, called in a small model: each method is right, or raises clearly.

Arguments are found by trial: a value that goes with each parameter's name, on activations of several shapes; what
cannot be called so is listed with the reason. A new torch with a function of its own shows up here.
"""

import inspect
import itertools
import warnings
from collections.abc import Callable, Iterator
from functools import cache

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import get_testing_overrides, resolve_name

from attrain import LRP, ZPlus
from tests.attrain import oracles
from tests.attrain.oracles import EPSILON, Network, Wrong, attempt, autograd_or_refuses, close, complete_or_refuses, inputs

# ------------------------------------------------------------------------------------------------ the functions


def name_of(func: Callable) -> str:
    """A function's name as one writes it, `torch.add`, `torch.Tensor.T.__get__`."""
    return resolve_name(func) or getattr(func, "__qualname__", str(func))


def core(name: str) -> str:
    """`add` of `torch.Tensor.__iadd__`, `torch.add` and `torch.Tensor.add_`."""
    parts = name.split(".")
    last = parts[-2] if parts[-1] in ("__get__", "__set__", "__delete__") else parts[-1]
    return last.strip("_")


FUNCTIONS = {name_of(f): f for f in get_testing_overrides()}

# Not called: part of a name -> the reason.
NOT_CALLED = {
    "cudnn": "for a GPU", "cuda": "for a GPU", "miopen": "for a GPU", "mkldnn": "of a back end", "fbgemm": "of a back end",
    "_xnnpack": "of a back end", "_nnpack": "of a back end", "quantize": "quantised tensors", "quantized": "quantised tensors",
    "fake_quant": "quantised tensors", "q_per_channel": "quantised tensors", "q_scale": "quantised tensors",
    "q_zero_point": "quantised tensors", "int_repr": "quantised tensors", "qscheme": "quantised tensors",
    "_choose_qparams": "quantised tensors", "_cpu_fake": "quantised tensors", "_fw_primal": "forward-mode derivatives",
    "_make_dual": "forward-mode derivatives", "_unpack_dual": "forward-mode derivatives", "backward": "a derivative of torch's own",
    "batch_norm_elemt": "parts of a synchronised batch norm", "batch_norm_gather_stats": "parts of a synchronised batch norm",
    "batch_norm_stats": "parts of a synchronised batch norm", "batch_norm_update_stats": "parts of a synchronised batch norm",
    "sspaddmm": "sparse tensors", "hspmm": "sparse tensors", "smm": "sparse tensors", "sparse": "sparse tensors", "coalesce": "sparse tensors",
    "indices": "sparse tensors", "Tensor.values": "sparse tensors", "crow": "sparse tensors", "ccol": "sparse tensors", "dense_dim": "sparse tensors",
    "_nested": "nested tensors", "nested": "nested tensors", "lu_unpack": "of a factorisation", "lu_solve": "of a factorisation",
    "ldl_solve": "of a factorisation", "ormqr": "of a factorisation", "orgqr": "of a factorisation", "householder": "of a factorisation",
    "rnn": "modules (test_silent)", "lstm": "modules (test_silent)", "gru": "modules (test_silent)", "_pack_padded": "modules (test_silent)", "_pad_packed": "modules (test_silent)",
    "storage": "memory, not numbers", "share_memory": "memory, not numbers", "data_ptr": "memory, not numbers", "pin_memory": "memory, not numbers",
    "is_pinned": "memory, not numbers", "is_shared": "memory, not numbers", "set_": "memory, not numbers", "resize": "memory, not numbers", "as_strided": "memory, not numbers", "_cdata": "memory, not numbers",
    "__setstate__": "pickling", "__reduce": "pickling", "__deepcopy__": "copies of leaves only", "__dlpack": "another library's tensors (test_silent)",
    "__cuda_array": "for a GPU", "register_": "a hook", "_hooks": "a hook", "retain_grad": "a hook", "module_load": "loads weights",
    "align_": "names of dimensions", "refine_names": "names of dimensions", "rename": "names of dimensions", "names": "names of dimensions", "has_names": "names of dimensions",
    "__delete__": "no operation", "_grad": "an attribute of leaves", "Tensor.grad": "an attribute of leaves", "__set__": "an attribute of leaves",
    "map_": "a function of Python", "map2_": "a function of Python", "apply_": "a function of Python", "volatile": "gone from torch", "symeig": "gone from torch", "imag": "complex numbers (test_silent)",
    "solve": "gone from torch, or linalg's (test_silent)", "lobpcg": "iterates", "pca_lowrank": "draws at random", "svd_lowrank": "draws at random", "xpu": "for another device", "ipu": "for another device", "mtia": "for another device", "vulkan": "for another device", "maia": "for another device", "hpu": "for another device",
    "_scaled_mm": "8-bit numbers", "_wrapped_linear": "of a back end", "sym_": "symbols, not numbers", "_assert": "no operation", "typename": "no operation", "_disabled": "no operation", "__torch_function__": "no operation", "_dispatch": "no operation",
    "multi_head_attention": "modules", "ctc_loss": "losses of several tensors", "triplet": "losses of several tensors", "_is_zerotensor": "no operation",
    "gumbel": "draws at random", "exponential_": "draws at random", "cauchy": "draws at random", "log_normal": "draws at random", "geometric": "draws at random", "random_": "draws at random", "normal_": "draws at random", "uniform_": "draws at random", "bernoulli": "draws at random", "multinomial": "draws at random", "_fused_dropout": "draws at random", "rrelu": "draws at random in training", "poisson": "draws at random", "binomial": "draws at random", "_sample_dirichlet": "draws at random", "_standard_gamma": "draws at random", "_dirichlet_grad": "draws at random",
}  # fmt: skip


def reason(name: str) -> str:
    return next((why for part, why in NOT_CALLED.items() if part in name), "")


# ------------------------------------------------------------------------------------------------ the arguments

SHAPES = ((6,), (4, 6), (1, 4, 6), (4, 4), (1, 2, 3, 4))
RANGES = {  # where a function is defined
    "any": lambda h: h, "positive": lambda h: h.abs() + 0.3, "in (0, 1)": lambda h: 0.1 + 0.8 * h.sigmoid(),
    "above 1": lambda h: h.abs() + 1.5, "in (−1, 1)": lambda h: 0.9 * h.tanh(),
    "positive definite": lambda h: h @ h.mT + 5 * torch.eye(h.shape[-1]).double() if h.ndim == 3 and h.shape[1] == h.shape[2] else None,
    "complex": lambda h: torch.complex(h, 0.5 * h),
    "whole": lambda h: (4 * h).long(), "truth": lambda h: h > 0,
}  # fmt: skip


def ramp(*shape: int) -> Tensor:
    n = torch.Size(shape).numel()
    return torch.linspace(-1, 1.5, max(n, 2), dtype=torch.float64)[:n].view(shape)


def like(h: Tensor) -> Tensor:
    """A constant that goes with an activation."""
    if not (h.is_floating_point() or h.is_complex()):
        return torch.arange(h.numel()).remainder(3).add(1).view(h.shape).to(h.dtype)
    return (ramp(*h.shape) + 2).to(h.dtype)


def numbers(h: Tensor) -> Tensor:
    return torch.arange(h.numel()).remainder(h.shape[-1]).remainder(3).view(h.shape)


def square(h: Tensor) -> Tensor:
    return ramp(h.shape[-1], h.shape[-1]).to(h.dtype)


C, S = like, square
VALUES: dict[str, Callable[[Tensor], list]] = {
    "other": lambda h: [C(h), 2, numbers(h), ramp(*h.shape[:-2], h.shape[-1], h.shape[-2]) if h.ndim > 2 else S(h), h.shape[1:]],
    "dim": lambda h: [1, -1, (1,), "N"], "axis": lambda h: [1], "dimension": lambda h: [1], "dims": lambda h: [(1,), (0, 1), (0, 2, 1)], "n": lambda h: [2],
    "dim0": lambda h: [0], "dim1": lambda h: [1], "axis0": lambda h: [0], "axis1": lambda h: [1], "start": lambda h: [1], "end": lambda h: [C(h) + 1, 3], "length": lambda h: [2], "k": lambda h: [2, 1],
    "weight": lambda h: [ramp(5, h.shape[-1]), 0.3, C(h), ramp(2, h.shape[1], *(2,) * (h.ndim - 2)), ramp(h.shape[1], 2, *(2,) * (h.ndim - 2)), ramp(h.shape[1]), ramp(7, 4)],
    "index": lambda h: [numbers(h), torch.tensor([1, 0]), 1, (slice(None), 1), torch.arange(len(h))], "indices": lambda h: [numbers(h), (torch.tensor([0, 1]), torch.tensor([1, 0])), 2],
    "tensor": lambda h: [h], "tensors": lambda h: [[h, C(h)], [h[:, 0], C(h)[:, 0]], [h, h.mT]], "inputs": lambda h: [[h, C(h)]], "input_tensor_list": lambda h: [[h, C(h)]], "kernel_size": lambda h: [2],
    "target": lambda h: [C(h), C(h).sign(), torch.arange(len(h)).remainder(2), C(h).sigmoid()], "bias": lambda h: [None, ramp(5)], "size": lambda h: [2, h.shape, (len(h), 3, *h.shape[1:]), (1, 3, *h.shape[1:])], "src": lambda h: [C(h), C(h)[:, 0], C(h)[:, :2], C(h)[:2]],
    "source": lambda h: [C(h), C(h)[:2], C(h)[:, :2]], "mat2": lambda h: [S(h), ramp(len(h), h.shape[1], 2)], "mat": lambda h: [h], "mat1": lambda h: [S(h)[: len(h)] if h.ndim == 2 else None], "vec": lambda h: [ramp(h.shape[-1])], "vec1": lambda h: [ramp(len(h))], "vec2": lambda h: [ramp(h.shape[-1]), ramp(len(h))],
    "batch1": lambda h: [ramp(len(h), h.shape[1], 2)], "batch2": lambda h: [ramp(len(h), 2, h.shape[-1])], "p": lambda h: [0.5, 2], "stride": lambda h: [1], "value": lambda h: [0.5, C(h)[:2], ramp(2)], "output_size": lambda h: [2, (2, 2), (2, 2, 2), (8, 12)], "eps": lambda h: [1e-5], "exponent": lambda h: [2.0],
    "mask": lambda h: [(C(h) > 2)], "condition": lambda h: [C(h) > 2], "tensor1": lambda h: [C(h)], "tensor2": lambda h: [C(h)], "train": lambda h: [False], "training": lambda h: [False], "b": lambda h: [C(h)], "a": lambda h: [h], "A": lambda h: [h], "B": lambda h: [C(h)], "x": lambda h: [h], "y": lambda h: [h, C(h)], "input1": lambda h: [h], "input2": lambda h: [C(h)],
    "x1": lambda h: [h], "x2": lambda h: [C(h)], "running_mean": lambda h: [ramp(h.shape[1])], "running_var": lambda h: [ramp(h.shape[1]).abs() + 1], "groups": lambda h: [1, 2], "num_groups": lambda h: [2], "indices_or_sections": lambda h: [2, [1]], "split_size_or_sections": lambda h: [2], "momentum": lambda h: [0.1], "padding": lambda h: [0, "valid"],
    "values": lambda h: [(C(h)[:2, 0],), ramp(2), C(h)], "reduce": lambda h: ["sum", "amax"], "normalized_shape": lambda h: [h.shape[1:]], "dtype": lambda h: [torch.float64], "min": lambda h: [-0.5], "max": lambda h: [0.5], "chunks": lambda h: [2], "grid": lambda h: [ramp(len(h), 2, 2, 2), ramp(len(h), 2, 2, 2, 3)], "interpolation_mode": lambda h: [0], "padding_mode": lambda h: [0], "align_corners": lambda h: [False],
    "shape": lambda h: [h.shape, (len(h), -1)], "pad": lambda h: [(1, 1)], "fill_value": lambda h: [0.5], "equation": lambda h: ["ni->n"], "shifts": lambda h: [1], "threshold": lambda h: [0.1], "boundaries": lambda h: [ramp(4)], "sorted_sequence": lambda h: [ramp(4)], "step": lambda h: [1], "maxnorm": lambda h: [1.0], "upscale_factor": lambda h: [1, 2], "downscale_factor": lambda h: [1, 2], "bins": lambda h: [4], "real": lambda h: [h], "abs": lambda h: [h], "ang": lambda h: [C(h)],
    "q": lambda h: [0.4], "norm_type": lambda h: [2.0], "theta": lambda h: [h[:, :2, :3] if h.ndim == 3 else None], "query": lambda h: [h], "key": lambda h: [C(h)], "repeats": lambda h: [2], "sizes": lambda h: [(2, 1, 1)], "hidden_size": lambda h: [2], "numel": lambda h: [2], "num_classes": lambda h: [9], "n_fft": lambda h: [4], "offsets": lambda h: [torch.tensor([0, 2])], "diagonal": lambda h: [0], "data": lambda h: [h], "batch_first": lambda h: [True], "var": lambda h: [C(h)], "anchor": lambda h: [h], "prob": lambda h: [0.5],
    "storage_offset": lambda h: [0], "blank": lambda h: [0], "dst": lambda h: [1], "level": lambda h: [0], "memory_format": lambda h: [torch.contiguous_format], "sections": lambda h: [2], "ord": lambda h: [2], "ratio": lambda h: [0.5], "count": lambda h: [1], "type": lambda h: [torch.float64], "alpha": lambda h: [1.0], "cudnn_enabled": lambda h: [False], "use_input_stats": lambda h: [True], "output_ratio": lambda h: [0.5], "lengths": lambda h: [torch.tensor([1, 2])],
    "format_spec": lambda h: [""], "names": lambda h: [None], "tensor_list": lambda h: [[h, C(h)]], "func": lambda h: [torch.add], "start_dim": lambda h: [1], "size1": lambda h: [2], "size2": lambda h: [2], "mean": lambda h: [ramp(h.shape[1])], "invstd": lambda h: [ramp(h.shape[1]) + 2], "input3": lambda h: [C(h)], "scale_factor": lambda h: [2], "elements": lambda h: [h], "test_elements": lambda h: [C(h)], "assume_unique": lambda h: [False], "obj": lambda h: [h], "v": lambda h: [C(h)], "N": lambda h: [3], "z": lambda h: [C(h)], "dilation": lambda h: [1], "transposed": lambda h: [False], "output_padding": lambda h: [0],
}  # fmt: skip
WAYS = {  # what has to be called by hand: name -> a function of an activation (N, 4, 6)
    "torch.where": lambda h: torch.where(C(h) > 2, h, 0.5), "torch.Tensor.where": lambda h: h.where(C(h) > 2, C(h)),
    "torch.einsum": lambda h: torch.einsum("nij,ij->n", h, ramp(4, 6)), "torch.functional.einsum": lambda h: torch.einsum("nij,ij->n", h, ramp(4, 6)),
    "torch.nn.functional.embedding": lambda h: h + F.embedding(numbers(h), ramp(7, 1))[..., 0], "torch.nn.functional.one_hot": lambda h: F.one_hot(h.argmax(2), 6),
    "torch.nn.functional.pad": lambda h: F.pad(h, (1, 1)), "torch.nn.functional.unfold": lambda h: F.unfold(h[:, None], 2), "torch.nn.functional.fold": lambda h: F.fold(h, (3, 4), 2),
    "torch.nn.functional.max_unpool1d": lambda h: F.max_unpool1d(*F.max_pool1d(h, 2, return_indices=True), 2), "torch.nn.functional.gaussian_nll_loss": lambda h: F.gaussian_nll_loss(h, C(h), C(h).abs(), reduction="none"),
    "torch.nn.functional.grid_sample": lambda h: F.grid_sample(h[:, None], ramp(len(h), 2, 2, 2).clamp(-1, 1), align_corners=False),
    "torch.nn.functional.affine_grid": lambda h: F.affine_grid(h[:, :2, :3], (len(h), 1, 2, 2), align_corners=False), "torch.affine_grid_generator": lambda h: torch.affine_grid_generator(h[:, :2, :3], (len(h), 1, 2, 2), False),
    "torch.nn.functional.bilinear": lambda h: F.bilinear(h, C(h), ramp(2, 6, 6)), "torch.bilinear": lambda h: torch.bilinear(h, C(h), ramp(2, 6, 6), None),
    "torch.nn.functional.interpolate": lambda h: F.interpolate(h[:, None], scale_factor=2), "torch.nn.functional.upsample": lambda h: F.upsample(h[:, None], scale_factor=2),
    "torch.nn.functional.scaled_dot_product_attention": lambda h: F.scaled_dot_product_attention(h, h, h), "torch.cdist": lambda h: torch.cdist(h, C(h)), "torch.tensordot": lambda h: torch.tensordot(h, ramp(6, 2), 1),
    "torch.layer_norm": lambda h: torch.layer_norm(h, (6,)), "torch.group_norm": lambda h: torch.group_norm(h, 2), "torch.batch_norm": lambda h: torch.batch_norm(h, None, None, ramp(4), ramp(4).abs() + 1, False, 0.1, 1e-5, False),
    "torch.native_batch_norm": lambda h: torch.native_batch_norm(h, ramp(4), ramp(4), ramp(4), ramp(4).abs() + 1, False, 0.1, 1e-5)[0], "torch.native_layer_norm": lambda h: torch.native_layer_norm(h, (6,), None, None, 1e-5)[0], "torch.native_group_norm": lambda h: torch.native_group_norm(h, None, None, len(h), 4, 6, 2, 1e-5)[0],
    "torch.Tensor.__setitem__": lambda h: _set(h.clone()), "torch.Tensor.requires_grad_": lambda h: h * 1, "torch.Tensor.__contains__": lambda h: h * (3.0 in h), "torch.conv_tbc": lambda h: torch.conv_tbc(h, ramp(2, 6, 3), ramp(3), 1), "torch._convolution": lambda h: torch._convolution(h, ramp(2, 4, 3), None, (1,), (0,), (1,), False, (0,), 1, False, False, False, False),
    "torch.convolution": lambda h: torch.convolution(h, ramp(2, 4, 3), None, (1,), (0,), (1,), False, (0,), 1), "torch.instance_norm": lambda h: torch.instance_norm(h, None, None, None, None, True, 0.1, 1e-5, False), "torch.embedding": lambda h: h + torch.embedding(ramp(7, 1), numbers(h))[..., 0],
    "torch.nn.functional.embedding_bag": lambda h: h[:, 0] + F.embedding_bag(torch.zeros(3, 2, dtype=torch.long)[: len(h)], ramp(7, 6)), "torch.block_diag": lambda h: torch.block_diag(*h.unbind()), "torch.cartesian_prod": lambda h: torch.cartesian_prod(h[:, 0, 0], h[:, 1, 0]), "torch.combinations": lambda h: torch.combinations(h[:, 0, 0]), "torch.meshgrid": lambda h: torch.meshgrid(h[:, 0, 0], h[:, 1, 0], indexing="ij"),
    "torch.broadcast_tensors": lambda h: torch.broadcast_tensors(h, ramp(6)), "torch.linalg.multi_dot": lambda h: torch.linalg.multi_dot([h[:, 0], ramp(6, 3), ramp(3, 2)]), "torch.chain_matmul": lambda h: torch.chain_matmul(h[:, 0], ramp(6, 3)), "torch.rms_norm": lambda h: torch.rms_norm(h, (6,)), "torch.histogramdd": lambda h: h + torch.histogramdd(h[:, 0].detach(), [2] * 6)[0].sum(),
    "torch.nn.functional.conv_tbc": lambda h: torch.conv_tbc(h, ramp(2, 6, 3), ramp(3), 1), "torch.lerp": lambda h: torch.lerp(h, C(h), 0.3), "torch.Tensor.lerp": lambda h: h.lerp(C(h), 0.3), "torch.Tensor.lerp_": lambda h: h.clone().lerp_(C(h), 0.3), "torch.trapezoid": lambda h: torch.trapezoid(h), "torch.nn.functional.grouped_mm": lambda h: h * 1,
}  # fmt: skip


def _set(h):
    h[:, 1] = 0.5
    return h


@cache
def required(func: Callable) -> tuple[str, ...]:
    """The names of the arguments that a function must be given."""
    parameters = inspect.signature(get_testing_overrides()[func]).parameters.values()
    by_place = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    return tuple(p.name for p in parameters if p.default is p.empty and p.kind in by_place)


def numeric(found, h: Tensor) -> list[Tensor]:
    """The numbers in what a function returned: tensors, and Python's own numbers as one of them."""
    tensors = [t for t in oracles.flat(found) if t.numel()] if isinstance(found, (Tensor, tuple, list, dict)) else []
    if tensors:
        return tensors
    own = [v for v in (found if isinstance(found, (tuple, list)) else [found]) if isinstance(v, (bool, int, float))]
    return [h + sum(float(v) for v in own)]


def offered(parameter: str, h: Tensor) -> list:
    """Values to try for a parameter."""
    try:
        return VALUES.get(parameter, lambda h: [])(h)
    except (NotImplementedError, RuntimeError, IndexError, ValueError):  # not of numbers like these
        return []


def calls(func: Callable, name: str) -> Iterator[tuple[tuple[int, ...], Callable]]:
    """Ways to call a function: an activation's shape, and a function of one that returns numbers."""
    if name in WAYS:
        yield (4, 6), lambda h: numeric(WAYS[name](h), h)
        return
    parameters = required(func)
    changes = name.endswith("_") and not name.endswith("__") or core(name) in ("iadd", "isub", "imul", "idiv", "itruediv", "ipow", "iand", "ior", "ixor", "ilshift", "irshift", "imod", "ifloordiv", "imatmul")
    for shape, within in itertools.product(SHAPES, RANGES):
        probe = RANGES[within](torch.rand(2, *shape, generator=torch.Generator().manual_seed(3), dtype=torch.float64))
        if probe is None:
            continue
        rest = parameters[1:]
        choices = [offered(p, probe) for p in rest]
        first = VALUES.get(parameters[0], lambda h: [h]) if parameters and parameters[0] not in ("input", "self") else lambda h: [h]
        for place in itertools.product(*(range(len(c)) for c in choices)):
            def call(h, within=within, place=place, first=first):
                h = RANGES[within](h)
                h = h.clone() if changes else h
                lead = first(h)[0] if parameters else h
                given = [VALUES[p](h)[k] for p, k in zip(rest, place)]
                found = func(lead, *given) if parameters else func(h)
                return numeric(lead if found is None and changes else found, h)  # fmt: skip

            yield shape, call


def settled(call: Callable, shape: tuple[int, ...]) -> bool:
    """Whether torch makes the call, with finite numbers as a result."""
    for seed in (1, 2):
        model = Network(call, shape, seed=seed)
        with torch.no_grad():
            found = model(inputs(seed=seed)[0])
        if not bool(found.isfinite().all()):
            return False
    return True


@cache
def found(name: str) -> tuple | None:
    """The first way to call a function that works: (shape, call), or None."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for shape, call in itertools.islice(calls(FUNCTIONS[name], name), 400):
            try:
                if settled(call, shape):
                    return shape, call
            except Exception:  # torch says no, in whatever way
                continue
    return None


CALLED = [name for name in FUNCTIONS if not reason(name)]
