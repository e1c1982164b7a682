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
from tests.attrain.oracles import (
    EPSILON,
    Network,
    Wrong,
    attempt,
    autograd_or_refuses,
    close,
    complete_or_refuses,
    inputs,
)

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
    "pretended": "of the tests' own device",
    "linalg.lu_factor": "has no value for the reference zero",
    "cudnn": "for a GPU",
    "cuda": "for a GPU",
    "miopen": "for a GPU",
    "mkldnn": "of a back end",
    "fbgemm": "of a back end",
    "_xnnpack": "of a back end",
    "_nnpack": "of a back end",
    "quantize": "quantised tensors",
    "quantized": "quantised tensors",
    "fake_quant": "quantised tensors",
    "q_per_channel": "quantised tensors",
    "q_scale": "quantised tensors",
    "q_zero_point": "quantised tensors",
    "int_repr": "quantised tensors",
    "qscheme": "quantised tensors",
    "_choose_qparams": "quantised tensors",
    "_cpu_fake": "quantised tensors",
    "_fw_primal": "forward-mode derivatives",
    "_make_dual": "forward-mode derivatives",
    "_unpack_dual": "forward-mode derivatives",
    "backward": "a derivative of torch's own",
    "batch_norm_elemt": "parts of a synchronised batch norm",
    "batch_norm_gather_stats": "parts of a synchronised batch norm",
    "batch_norm_stats": "parts of a synchronised batch norm",
    "batch_norm_update_stats": "parts of a synchronised batch norm",
    "sspaddmm": "sparse tensors",
    "hspmm": "sparse tensors",
    "smm": "sparse tensors",
    "sparse": "sparse tensors",
    "coalesce": "sparse tensors",
    "indices": "sparse tensors",
    "Tensor.values": "sparse tensors",
    "crow": "sparse tensors",
    "ccol": "sparse tensors",
    "dense_dim": "sparse tensors",
    "_nested": "nested tensors",
    "nested": "nested tensors",
    "lu_unpack": "of a factorisation",
    "lu_solve": "of a factorisation",
    "ldl_solve": "of a factorisation",
    "ormqr": "of a factorisation",
    "orgqr": "of a factorisation",
    "householder": "of a factorisation",
    "rnn": "modules (test_silent)",
    "lstm": "modules (test_silent)",
    "gru": "modules (test_silent)",
    "_pack_padded": "modules (test_silent)",
    "_pad_packed": "modules (test_silent)",
    "storage": "memory, not numbers",
    "share_memory": "memory, not numbers",
    "data_ptr": "memory, not numbers",
    "pin_memory": "memory, not numbers",
    "is_pinned": "memory, not numbers",
    "is_shared": "memory, not numbers",
    "set_": "memory, not numbers",
    "resize": "memory, not numbers",
    "as_strided": "memory, not numbers",
    "_cdata": "memory, not numbers",
    "__setstate__": "pickling",
    "__reduce": "pickling",
    "__deepcopy__": "copies of leaves only",
    "__dlpack": "another library's tensors (test_silent)",
    "__cuda_array": "for a GPU",
    "register_": "a hook",
    "_hooks": "a hook",
    "retain_grad": "a hook",
    "module_load": "loads weights",
    "align_": "names of dimensions",
    "refine_names": "names of dimensions",
    "rename": "names of dimensions",
    "names": "names of dimensions",
    "has_names": "names of dimensions",
    "__delete__": "no operation",
    "_grad": "an attribute of leaves",
    "Tensor.grad": "an attribute of leaves",
    "__set__": "an attribute of leaves",
    "map_": "a function of Python",
    "map2_": "a function of Python",
    "apply_": "a function of Python",
    "volatile": "gone from torch",
    "symeig": "gone from torch",
    "imag": "complex numbers (test_silent)",
    "solve": "gone from torch, or linalg's (test_silent)",
    "lobpcg": "iterates",
    "pca_lowrank": "draws at random",
    "svd_lowrank": "draws at random",
    "xpu": "for another device",
    "ipu": "for another device",
    "mtia": "for another device",
    "vulkan": "for another device",
    "maia": "for another device",
    "hpu": "for another device",
    "_scaled_mm": "8-bit numbers",
    "_wrapped_linear": "of a back end",
    "sym_": "symbols, not numbers",
    "_assert": "no operation",
    "typename": "no operation",
    "_disabled": "no operation",
    "__torch_function__": "no operation",
    "_dispatch": "no operation",
    "multi_head_attention": "modules",
    "ctc_loss": "losses of several tensors",
    "triplet": "losses of several tensors",
    "_is_zerotensor": "no operation",
    "linear_cross_entropy": "losses of several tensors",
    "choose_qparams": "quantised tensors",
    "frobenius_norm": "gone from torch",
    "native_norm": "sparse tensors",
    "_native_batch_norm_legit": "of torch.batch_norm",
    "_fused_rms_norm": "for a GPU",
    "fractional_max_pool3d": "draws at random",
    "nn.init": "makes parameters",
    "_rowwise_prune": "of a back end",
    "_reshape_alias_copy": "of a compiler",
    "values_copy": "sparse tensors",
    "__complex__": "a number of Python's",
    "__long__": "gone from Python",
    "__array_wrap__": "another library's tensors (test_silent)",
    "_autocast_to": "of autocast",
    "_dimI": "sparse tensors",
    "_dimV": "sparse tensors",
    "_nnz": "sparse tensors",
    "_values": "sparse tensors",
    "record_stream": "for a GPU",
    "_to_dense": "sparse tensors",
    "Tensor.index": "gone from torch",
    "foreach.mm": "of optimisers",
    **dict.fromkeys(
        ("broadcast", "all_reduce", "all_gather", "reduce_scatter", "all_to_all", "isend", "irecv", "send", "recv"),
        "between processes",
    ),
    "gumbel": "draws at random",
    "exponential_": "draws at random",
    "cauchy": "draws at random",
    "log_normal": "draws at random",
    "geometric": "draws at random",
    "random_": "draws at random",
    "normal_": "draws at random",
    "uniform_": "draws at random",
    "bernoulli": "draws at random",
    "multinomial": "draws at random",
    "_fused_dropout": "draws at random",
    "rrelu": "draws at random in training",
    "poisson": "draws at random",
    "binomial": "draws at random",
    "_sample_dirichlet": "draws at random",
    "_standard_gamma": "draws at random",
    "_dirichlet_grad": "draws at random",
}


def reason(name: str) -> str:
    """Why a function is not called, or nothing."""
    if name in WAYS:
        return ""
    if "." not in name:
        return "between processes"  # of torch.distributed
    return next((why for part, why in NOT_CALLED.items() if part in name), "")


# ------------------------------------------------------------------------------------------------ the arguments

SHAPES = ((6,), (4, 6), (1, 4, 6), (4, 4), (1, 2, 3, 4))
RANGES = {  # where a function is defined
    "any": lambda h: h,
    "positive": lambda h: h.abs() + 0.3,
    "in (0, 1)": lambda h: 0.1 + 0.8 * h.sigmoid(),
    "above 1": lambda h: h.abs() + 1.5,
    "in (−1, 1)": lambda h: 0.9 * h.tanh(),
    "positive definite": lambda h: (
        h @ h.mT + 5 * torch.eye(h.shape[-1]).double() if h.ndim == 3 and h.shape[1] == h.shape[2] else None
    ),
    "complex": lambda h: torch.complex(h, 0.5 * h),
    "whole": lambda h: (4 * h).long(),
    "truth": lambda h: h > 0,
}


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
    "other": lambda h: [
        C(h),
        2,
        numbers(h),
        ramp(*h.shape[:-2], h.shape[-1], h.shape[-2]) if h.ndim > 2 else S(h),
        h.shape[1:],
    ],
    "dim": lambda h: [1, -1, (1,), "N"],
    "axis": lambda h: [1],
    "dimension": lambda h: [1],
    "dims": lambda h: [(1,), (0, 1), (0, 2, 1)],
    "n": lambda h: [2],
    "dim0": lambda h: [0],
    "dim1": lambda h: [1],
    "axis0": lambda h: [0],
    "axis1": lambda h: [1],
    "start": lambda h: [1],
    "end": lambda h: [C(h) + 1, 3],
    "length": lambda h: [2],
    "k": lambda h: [2, 1],
    "weight": lambda h: [
        ramp(5, h.shape[-1]),
        0.3,
        C(h),
        ramp(2, h.shape[1], *(2,) * (h.ndim - 2)),
        ramp(h.shape[1], 2, *(2,) * (h.ndim - 2)),
        ramp(h.shape[1]),
        ramp(7, 4),
    ],
    "index": lambda h: [numbers(h), torch.tensor([1, 0]), 1, (slice(None), 1), torch.arange(len(h))],
    "indices": lambda h: [numbers(h), (torch.tensor([0, 1]), torch.tensor([1, 0])), 2],
    "tensor": lambda h: [h],
    "tensors": lambda h: [[h, C(h)], [h[:, 0], C(h)[:, 0]], [h, h.mT]],
    "inputs": lambda h: [[h, C(h)]],
    "input_tensor_list": lambda h: [[h, C(h)]],
    "kernel_size": lambda h: [2],
    "target": lambda h: [C(h), C(h).sign(), torch.arange(len(h)).remainder(2), C(h).sigmoid()],
    "bias": lambda h: [None, ramp(5)],
    "size": lambda h: [2, h.shape, (len(h), 3, *h.shape[1:]), (1, 3, *h.shape[1:])],
    "src": lambda h: [C(h), C(h)[:, 0], C(h)[:, :2], C(h)[:2]],
    "source": lambda h: [C(h), C(h)[:2], C(h)[:, :2]],
    "mat2": lambda h: [S(h), ramp(len(h), h.shape[1], 2)],
    "mat": lambda h: [h],
    "mat1": lambda h: [S(h)[: len(h)] if h.ndim == 2 else None],
    "vec": lambda h: [ramp(h.shape[-1])],
    "vec1": lambda h: [ramp(len(h))],
    "vec2": lambda h: [ramp(h.shape[-1]), ramp(len(h))],
    "batch1": lambda h: [ramp(len(h), h.shape[1], 2)],
    "batch2": lambda h: [ramp(len(h), 2, h.shape[-1])],
    "p": lambda h: [0.5, 2],
    "stride": lambda h: [1],
    "value": lambda h: [0.5, C(h)[:2], ramp(2)],
    "output_size": lambda h: [2, (2, 2), (2, 2, 2), (8, 12)],
    "eps": lambda h: [1e-5],
    "exponent": lambda h: [2.0],
    "mask": lambda h: [(C(h) > 2)],
    "condition": lambda h: [C(h) > 2],
    "tensor1": lambda h: [C(h)],
    "tensor2": lambda h: [C(h)],
    "train": lambda h: [False],
    "training": lambda h: [False],
    "b": lambda h: [C(h)],
    "a": lambda h: [h],
    "A": lambda h: [h],
    "B": lambda h: [C(h)],
    "x": lambda h: [h],
    "y": lambda h: [h, C(h)],
    "input1": lambda h: [h],
    "input2": lambda h: [C(h)],
    "x1": lambda h: [h],
    "x2": lambda h: [C(h)],
    "running_mean": lambda h: [ramp(h.shape[1])],
    "running_var": lambda h: [ramp(h.shape[1]).abs() + 1],
    "groups": lambda h: [1, 2],
    "num_groups": lambda h: [2],
    "indices_or_sections": lambda h: [2, [1]],
    "split_size_or_sections": lambda h: [2],
    "momentum": lambda h: [0.1],
    "padding": lambda h: [0, "valid"],
    "values": lambda h: [(C(h)[:2, 0],), ramp(2), C(h)],
    "reduce": lambda h: ["sum", "amax"],
    "normalized_shape": lambda h: [h.shape[1:]],
    "dtype": lambda h: [torch.float64],
    "min": lambda h: [-0.5],
    "max": lambda h: [0.5],
    "chunks": lambda h: [2],
    "grid": lambda h: [ramp(len(h), 2, 2, 2), ramp(len(h), 2, 2, 2, 3)],
    "interpolation_mode": lambda h: [0],
    "padding_mode": lambda h: [0],
    "align_corners": lambda h: [False],
    "shape": lambda h: [h.shape, (len(h), -1)],
    "pad": lambda h: [(1, 1)],
    "fill_value": lambda h: [0.5],
    "equation": lambda h: ["ni->n"],
    "shifts": lambda h: [1],
    "threshold": lambda h: [0.1],
    "boundaries": lambda h: [ramp(4)],
    "sorted_sequence": lambda h: [ramp(4)],
    "step": lambda h: [1],
    "maxnorm": lambda h: [1.0],
    "upscale_factor": lambda h: [1, 2],
    "downscale_factor": lambda h: [1, 2],
    "bins": lambda h: [4],
    "real": lambda h: [h],
    "abs": lambda h: [h],
    "ang": lambda h: [C(h)],
    "q": lambda h: [0.4],
    "norm_type": lambda h: [2.0],
    "theta": lambda h: [h[:, :2, :3] if h.ndim == 3 else None],
    "query": lambda h: [h],
    "key": lambda h: [C(h)],
    "repeats": lambda h: [2],
    "sizes": lambda h: [(2, 1, 1)],
    "hidden_size": lambda h: [2],
    "numel": lambda h: [2],
    "num_classes": lambda h: [9],
    "n_fft": lambda h: [4],
    "offsets": lambda h: [torch.tensor([0, 2])],
    "diagonal": lambda h: [0],
    "data": lambda h: [h],
    "batch_first": lambda h: [True],
    "var": lambda h: [C(h)],
    "anchor": lambda h: [h],
    "prob": lambda h: [0.5],
    "storage_offset": lambda h: [0],
    "blank": lambda h: [0],
    "dst": lambda h: [1],
    "level": lambda h: [0],
    "memory_format": lambda h: [torch.contiguous_format],
    "sections": lambda h: [2],
    "ord": lambda h: [2],
    "ratio": lambda h: [0.5],
    "count": lambda h: [1],
    "type": lambda h: [torch.float64],
    "alpha": lambda h: [1.0],
    "cudnn_enabled": lambda h: [False],
    "use_input_stats": lambda h: [True],
    "output_ratio": lambda h: [0.5],
    "lengths": lambda h: [torch.tensor([1, 2])],
    "format_spec": lambda h: [""],
    "names": lambda h: [None],
    "tensor_list": lambda h: [[h, C(h)]],
    "func": lambda h: [torch.add],
    "start_dim": lambda h: [1],
    "size1": lambda h: [2],
    "size2": lambda h: [2],
    "mean": lambda h: [ramp(h.shape[1])],
    "invstd": lambda h: [ramp(h.shape[1]) + 2],
    "input3": lambda h: [C(h)],
    "scale_factor": lambda h: [2],
    "elements": lambda h: [h],
    "test_elements": lambda h: [C(h)],
    "assume_unique": lambda h: [False],
    "obj": lambda h: [h],
    "v": lambda h: [C(h)],
    "N": lambda h: [3],
    "z": lambda h: [C(h)],
    "dilation": lambda h: [1],
    "transposed": lambda h: [False],
    "output_padding": lambda h: [0],
}
WAYS = {  # what has to be called by hand: name -> a function of an activation (N, 4, 6)
    "torch.where": lambda h: torch.where(C(h) > 2, h, 0.5),
    "torch.Tensor.where": lambda h: h.where(C(h) > 2, C(h)),
    "torch.einsum": lambda h: torch.einsum("nij,ij->n", h, ramp(4, 6)),
    "torch.functional.einsum": lambda h: torch.einsum("nij,ij->n", h, ramp(4, 6)),
    "torch.nn.functional.embedding": lambda h: h + F.embedding(numbers(h), ramp(7, 1))[..., 0],
    "torch.nn.functional.one_hot": lambda h: F.one_hot(h.argmax(2), 6),
    "torch.nn.functional.pad": lambda h: F.pad(h, (1, 1)),
    "torch.nn.functional.unfold": lambda h: F.unfold(h[:, None], 2),
    "torch.nn.functional.fold": lambda h: F.fold(h, (3, 4), 2),
    "torch.nn.functional.max_unpool1d": lambda h: F.max_unpool1d(*F.max_pool1d(h, 2, return_indices=True), 2),
    "torch.nn.functional.gaussian_nll_loss": lambda h: F.gaussian_nll_loss(h, C(h), C(h).abs(), reduction="none"),
    "torch.nn.functional.grid_sample": lambda h: F.grid_sample(
        h[:, None], ramp(len(h), 2, 2, 2).clamp(-1, 1), align_corners=False
    ),
    "torch.nn.functional.affine_grid": lambda h: F.affine_grid(h[:, :2, :3], (len(h), 1, 2, 2), align_corners=False),
    "torch.affine_grid_generator": lambda h: torch.affine_grid_generator(h[:, :2, :3], (len(h), 1, 2, 2), False),
    "torch.nn.functional.bilinear": lambda h: F.bilinear(h, C(h), ramp(2, 6, 6)),
    "torch.bilinear": lambda h: torch.bilinear(h, C(h), ramp(2, 6, 6), None),
    "torch.nn.functional.interpolate": lambda h: F.interpolate(h[:, None], scale_factor=2),
    "torch.nn.functional.upsample": lambda h: F.upsample(h[:, None], scale_factor=2),
    "torch.nn.functional.scaled_dot_product_attention": lambda h: F.scaled_dot_product_attention(h, h, h),
    "torch.cdist": lambda h: torch.cdist(h, C(h)),
    "torch.tensordot": lambda h: torch.tensordot(h, ramp(6, 2), 1),
    "torch.layer_norm": lambda h: torch.layer_norm(h, (6,)),
    "torch.group_norm": lambda h: torch.group_norm(h, 2),
    "torch.batch_norm": lambda h: torch.batch_norm(h, None, None, ramp(4), ramp(4).abs() + 1, False, 0.1, 1e-5, False),
    "torch.native_batch_norm": lambda h: torch.native_batch_norm(
        h, ramp(4), ramp(4), ramp(4), ramp(4).abs() + 1, False, 0.1, 1e-5
    )[0],
    "torch.native_layer_norm": lambda h: torch.native_layer_norm(h, (6,), None, None, 1e-5)[0],
    "torch.native_group_norm": lambda h: torch.native_group_norm(h, None, None, len(h), 4, 6, 2, 1e-5)[0],
    "torch.Tensor.__setitem__": lambda h: _set(h.clone()),
    "torch.Tensor.requires_grad_": lambda h: h * 1,
    "torch.Tensor.__contains__": lambda h: h * (3.0 in h),
    "torch.conv_tbc": lambda h: torch.conv_tbc(h, ramp(2, 6, 3), ramp(3), 1),
    "torch._convolution": lambda h: torch._convolution(
        h, ramp(2, 4, 3), None, (1,), (0,), (1,), False, (0,), 1, False, False, False, False
    ),
    "torch.convolution": lambda h: torch.convolution(h, ramp(2, 4, 3), None, (1,), (0,), (1,), False, (0,), 1),
    "torch.instance_norm": lambda h: torch.instance_norm(h, None, None, None, None, True, 0.1, 1e-5, False),
    "torch.embedding": lambda h: h + torch.embedding(ramp(7, 1), numbers(h))[..., 0],
    "torch.nn.functional.embedding_bag": lambda h: (
        h[:, 0] + F.embedding_bag(torch.zeros(3, 2, dtype=torch.long)[: len(h)], ramp(7, 6))
    ),
    "torch.block_diag": lambda h: torch.block_diag(*h.unbind()),
    "torch.cartesian_prod": lambda h: torch.cartesian_prod(h[:, 0, 0], h[:, 1, 0]),
    "torch.combinations": lambda h: torch.combinations(h[:, 0, 0]),
    "torch.meshgrid": lambda h: torch.meshgrid(h[:, 0, 0], h[:, 1, 0], indexing="ij"),
    "torch.broadcast_tensors": lambda h: torch.broadcast_tensors(h, ramp(6)),
    "torch.linalg.multi_dot": lambda h: torch.linalg.multi_dot([h[:, 0], ramp(6, 3), ramp(3, 2)]),
    "torch.chain_matmul": lambda h: torch.chain_matmul(h[:, 0], ramp(6, 3)),
    "torch.rms_norm": lambda h: torch.rms_norm(h, (6,)),
    "torch.histogramdd": lambda h: h + torch.histogramdd(h[:, 0].detach(), [2] * 6)[0].sum(),
    "torch.nn.functional.conv_tbc": lambda h: torch.conv_tbc(h, ramp(2, 6, 3), ramp(3), 1),
    "torch.lerp": lambda h: torch.lerp(h, C(h), 0.3),
    "torch.Tensor.lerp": lambda h: h.lerp(C(h), 0.3),
    "torch.Tensor.lerp_": lambda h: h.clone().lerp_(C(h), 0.3),
    "torch.trapezoid": lambda h: torch.trapezoid(h),
    "torch.complex": lambda h: torch.complex(h, 2 * h),
    "torch.dot": lambda h: torch.stack([torch.dot(v, ramp(6)) for v in h[:, 0]]),
    "torch.Tensor.dot": lambda h: torch.stack([v.dot(ramp(6)) for v in h[:, 0]]),
    "torch.vdot": lambda h: torch.stack([torch.vdot(v, ramp(6)) for v in h[:, 0]]),
    "torch.Tensor.vdot": lambda h: torch.stack([v.vdot(ramp(6)) for v in h[:, 0]]),
    "torch.outer": lambda h: torch.stack([torch.outer(v, ramp(6)) for v in h[:, 0]]),
    "torch.Tensor.outer": lambda h: torch.stack([v.outer(ramp(6)) for v in h[:, 0]]),
    "torch.ger": lambda h: torch.stack([torch.ger(v, ramp(6)) for v in h[:, 0]]),
    "torch.Tensor.ger": lambda h: torch.stack([v.ger(ramp(6)) for v in h[:, 0]]),
    "torch.linalg.cross": lambda h: torch.linalg.cross(h[:, :3], C(h)[:, :3], dim=1),
    "torch.addmv": lambda h: torch.addmv(h[:, 0, 0], h[:, 0], ramp(6)),
    "torch.Tensor.addmv": lambda h: h[:, 0, 0].addmv(h[:, 0], ramp(6)),
    "torch.Tensor.addmv_": lambda h: h[:, 0, 0].clone().addmv_(h[:, 0], ramp(6)),
    "torch.addbmm": lambda h: torch.addbmm(h[0], h, ramp(len(h), 6, 6)),
    "torch.Tensor.addbmm": lambda h: h[0].addbmm(h, ramp(len(h), 6, 6)),
    "torch.Tensor.addbmm_": lambda h: h[0].clone().addbmm_(h, ramp(len(h), 6, 6)),
    **{f"torch.{n}": lambda h, n=n: getattr(torch, n)(h, -0.5, 0.5) for n in ("clamp", "clip")},
    **{
        f"torch.Tensor.{n}": lambda h, n=n: getattr(h.clone(), n)(-0.5, 0.5)
        for n in ("clamp", "clip", "clamp_", "clip_")
    },
    **{f"torch.{n}": lambda h, n=n: getattr(torch, n)(h, 1, 2) for n in ("movedim", "moveaxis")},
    **{f"torch.Tensor.{n}": lambda h, n=n: getattr(h, n)(1, 2) for n in ("movedim", "moveaxis")},
    "torch.permute": lambda h: torch.permute(h, (0, 2, 1)),
    "torch.Tensor.permute": lambda h: h.permute(0, 2, 1),
    "torch.scatter": lambda h: torch.scatter(h, 1, numbers(h), C(h)),
    "torch.Tensor.scatter": lambda h: h.scatter(1, numbers(h), 0.5),
    "torch.Tensor.scatter_": lambda h: (
        torch.zeros(h.shape).double().scatter_(2, torch.arange(6).flip(0).expand(h.shape), h)
    ),
    "torch.searchsorted": lambda h: torch.searchsorted(ramp(4), h),
    "torch.unflatten": lambda h: torch.unflatten(h, 2, (2, 3)),
    "torch.repeat_interleave": lambda h: torch.repeat_interleave(h, 2, 1),
    "torch.Tensor.repeat_interleave": lambda h: h.repeat_interleave(2, 1),
    "torch.Tensor.repeat": lambda h: h.repeat(1, 2, 1),
    "torch.Tensor.tile": lambda h: h.tile(1, 2, 1),
    **{
        f"torch.{n}": lambda h, n=n: getattr(torch, n)(h, [2, 4], 2)
        for n in ("split_with_sizes", "unsafe_split_with_sizes", "split_with_sizes_copy")
    },
    **{
        f"torch.Tensor.{n}": lambda h, n=n: getattr(h, n)([2, 4], 2)
        for n in ("split_with_sizes", "unsafe_split_with_sizes")
    },
    "torch.split_copy": lambda h: torch.split_copy(h, 2, 1),
    "torch.view_as_complex": lambda h: torch.view_as_complex(h.reshape(len(h), 4, 3, 2)),
    "torch.view_as_complex_copy": lambda h: torch.view_as_complex_copy(h.reshape(len(h), 4, 3, 2)),
    "torch.polygamma": lambda h: torch.polygamma(1, h.abs() + 1),
    "torch.special.polygamma": lambda h: torch.special.polygamma(1, h.abs() + 1),
    "torch.linalg.tensorinv": lambda h: torch.linalg.tensorinv(h[0, :, :4] + 5 * torch.eye(4), ind=1),
    "torch.logsumexp": lambda h: torch.logsumexp(h, 1),
    "torch.Tensor.logsumexp": lambda h: h.logsumexp(1),
    "torch.bincount": lambda h: h[:, 0] + torch.bincount((h[0, 0].sigmoid() * 5).long(), minlength=6),
    "torch.Tensor.bincount": lambda h: h[:, 0] + (h[0, 0].sigmoid() * 5).long().bincount(minlength=6),
    "torch.functional.cartesian_prod": lambda h: torch.cartesian_prod(h[:, 0, 0], h[:, 1, 0]),
    "torch.functional.meshgrid": lambda h: torch.meshgrid(h[:, 0, 0], h[:, 1, 0], indexing="ij"),
    "torch.isin": lambda h: h + torch.isin(h, ramp(4)),
    "torch.Tensor.__getitem__": lambda h: h[:, 1],
    **{
        f"torch.Tensor.{n}": lambda h, n=n: h * getattr(h.abs().sum(), n)()
        for n in ("__float__", "__bool__", "__int__", "item", "is_nonzero")
    },
    "torch.is_nonzero": lambda h: h * torch.is_nonzero(h.sum()),
    "torch.Tensor.__index__": lambda h: h * h.abs().sum().long().__index__(),
    "torch.Tensor.__nonzero__": lambda h: h * h.sum().__bool__(),
    "torch.Tensor.__array__": lambda h: h * float(h.detach().__array__().sum()),
    "torch.Tensor.put_": lambda h: h.clone().put_(torch.tensor([1, 5]), ramp(2)),
    "torch.nonzero_static": lambda h: h[:, 0, :2] + torch.nonzero_static(h[:, 0, 0] > 0, size=3),
    "torch.Tensor.nonzero_static": lambda h: h[:, 0, :2] + (h[:, 0, 0] > 0).nonzero_static(size=3),
    "_VariableFunctionsClass.segment_reduce": lambda h: (
        torch.segment_reduce(h[:, 0].T.contiguous(), "sum", lengths=torch.tensor([2, 4])).T
    ),
    "torch.embedding_bag": lambda h: (
        h[:, 0] + torch.embedding_bag(ramp(7, 6), torch.tensor([0, 1, 2]), torch.arange(3))[0]
    ),
    "torch.nn.functional.fractional_max_pool2d": lambda h: F.fractional_max_pool2d(
        h[:, None], 2, output_size=2, _random_samples=torch.full((len(h), 1, 2), 0.5).double()
    ),
    "torch.nn.functional.multilabel_margin_loss": lambda h: F.multilabel_margin_loss(
        h[:, 0], torch.zeros(len(h), 6, dtype=torch.long), reduction="none"
    ),
    "torch.adaptive_max_pool1d": lambda h: torch.adaptive_max_pool1d(h, 2)[0],
    **{
        f"torch.foreach.{n}": lambda h, n=n: getattr(torch, f"_foreach_{n}")([h], [C(h)], [C(h)])
        for n in ("addcdiv", "addcmul")
    },
    "torch.foreach.lerp": lambda h: torch._foreach_lerp([h], [C(h)], 0.3),
    "torch.foreach.pow": lambda h: torch._foreach_pow([h.abs() + 1], 2.0),
    "torch.foreach.copy_": lambda h: _after(c := [torch.zeros(h.shape).double()], torch._foreach_copy_(c, [h])),
    "torch.foreach.addcmul_": lambda h: _after(c := [h.clone()], torch._foreach_addcmul_(c, [C(h)], [C(h)])),
    "torch.foreach.addcdiv_": lambda h: _after(c := [h.clone()], torch._foreach_addcdiv_(c, [C(h)], [C(h)])),
    "torch.foreach.lerp_": lambda h: _after(c := [h.clone()], torch._foreach_lerp_(c, [C(h)], 0.3)),
}


def _after(value, done):
    return value


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


def made_active(value, h: Tensor):
    """A constant among the arguments made one that depends on the input."""
    if isinstance(value, (list, tuple)):
        return type(value)(made_active(v, h) for v in value) if any(isinstance(v, Tensor) for v in value) else value
    if not (isinstance(value, Tensor) and value.dtype == h.dtype == torch.float64) or value is h:
        return value
    return value + 0.1 * (h.roll(1, -1) if value.shape == h.shape else h.mean())


def offered(parameter: str, h: Tensor) -> list:
    """Values to try for a parameter."""
    try:
        return VALUES.get(parameter, lambda h: [])(h)
    except (NotImplementedError, RuntimeError, IndexError, ValueError):  # not of numbers like these
        return []


def calls(func: Callable, name: str) -> Iterator[tuple[tuple[int, ...], Callable]]:
    """Ways to call a function: an activation's shape, and a function of one that returns numbers."""
    if name in WAYS:
        yield (4, 6), lambda h, active=False: numeric(WAYS[name](h), h)
        return
    parameters = required(func)
    rest = parameters[1:]
    changes = (name.endswith("_") and not name.endswith("__")) or core(name) in (
        "iadd",
        "isub",
        "imul",
        "idiv",
        "itruediv",
        "ipow",
        "iand",
        "ior",
        "ixor",
        "ilshift",
        "irshift",
        "imod",
        "ifloordiv",
        "imatmul",
    )
    for shape, within in itertools.product(SHAPES, RANGES):
        probe = RANGES[within](torch.rand(2, *shape, generator=torch.Generator().manual_seed(3), dtype=torch.float64))
        if probe is None:
            continue
        choices = [offered(p, probe) for p in rest]
        first = (
            VALUES.get(parameters[0], lambda h: [h])
            if parameters and parameters[0] not in ("input", "self")
            else lambda h: [h]
        )
        for place in itertools.product(*(range(len(c)) for c in choices)):

            def call(h, within=within, place=place, first=first, active=False):
                h = RANGES[within](h)
                h = h.clone() if changes else h
                lead = first(h)[0] if parameters else h
                given = [VALUES[p](h)[k] for p, k in zip(rest, place)]
                given = [made_active(v, h) for v in given] if active else given
                found = func(lead, *given) if parameters else func(h)
                return numeric(lead if found is None and changes else found, h)

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


ROUNDED = tuple(f"torch.Tensor.{dtype}" for dtype in ("float", "half", "bfloat16", "chalf", "cfloat"))  # no float64
CALLED = [name for name in FUNCTIONS if not reason(name) and name not in ROUNDED]
MAXIMA = frozenset(
    """max amax maximum fmax min amin minimum fmin aminmax max_pool1d max_pool2d max_pool3d max_pool1d_with_indices
    max_pool2d_with_indices max_pool3d_with_indices adaptive_max_pool1d adaptive_max_pool2d adaptive_max_pool3d
    adaptive_max_pool1d_with_indices adaptive_max_pool2d_with_indices adaptive_max_pool3d_with_indices max_unpool1d
    fractional_max_pool2d fractional_max_pool2d_with_indices index_reduce""".split()
)  # index_reduce is called with "amax" here
OWN_RULE_OF_ZPLUS = frozenset(
    """linear conv1d conv2d conv3d batch_norm native_batch_norm add iadd radd addmm addbmm baddbmm addmv sub isub rsub
    subtract sum stack cat index_add scatter_add convolution _convolution""".split()
)


def random(call: Callable, shape) -> bool:
    """Whether a function draws: two calls differ."""
    with torch.no_grad():
        model, x = Network(call, shape), inputs()[0]
        return not torch.equal(model(x), model(x))


def judge_relevance(name: str, call: Callable, shape, alone: bool) -> None:
    """LRP-ε and z⁺: a map is right by its definition, or there is none."""
    model, x = Network(call, shape), inputs()[0]
    probe = model.hidden(x).detach()
    affine = oracles.is_affine(call, probe)
    for label, method in (("LRP", LRP(EPSILON)), ("z⁺", ZPlus(EPSILON))):
        made = attempt(lambda method=method: oracles.map_of(model, x, method))
        if isinstance(made, str):
            continue
        relu = core(name) in ("relu", "relu6")  # which no activation here fills
        if not (affine or relu or core(name) in MAXIMA):
            raise Wrong(f"{label} accepts what is neither affine, nor ReLU, nor a maximum")
        if label == "LRP":
            twin = Network(oracles.epsilon_relu, shape) if relu else model
            close(made, x * oracles.gradient_by_autograd(twin, x), label)
        elif alone and core(name) not in OWN_RULE_OF_ZPLUS:
            close(made, oracles.zplus_by_hand(model, x), label)


def judge(name: str, call: Callable, shape, results: dict, alone: bool) -> None:
    """All methods; `alone`: the call is this function and nothing else."""
    x, r = inputs()
    results["DeepLIFT"] = complete_or_refuses(Network(call, shape), x, r, "rescale", independent=False)
    try:
        oracles.gradient_by_autograd(Network(call, shape), x)
    except Exception:  # torch has no derivative
        attempt_or_torch(Network(call, shape), x)
    else:
        results["gradient"] = autograd_or_refuses(Network(call, shape), x)
    judge_relevance(name, call, shape, alone)


def attempt_or_torch(model, x) -> None:
    """Where torch has no derivative, there is no map of the gradient; that torch says so is clear."""
    with pytest.raises(Exception):  # noqa: B017
        oracles.map_of(model, x, oracles.METHODS["input_x_gradient"])


# ------------------------------------------------------------------------------------------------ the tests


@pytest.mark.filterwarnings("ignore")  # of deprecations and prototypes, torch's own
@pytest.mark.parametrize("name", CALLED)
def test_every_function_is_right_or_refused(name, record_property):
    way = found(name)
    assert way, f"no arguments found for {name}{required(FUNCTIONS[name])}: list it with a reason, or how it is called"
    shape, call = way
    results = {}
    if random(call, shape):
        attempt(lambda: oracles.map_of(Network(call, shape), inputs()[0], oracles.METHODS["rescale"]))
        results["DeepLIFT"] = "random"
    else:
        judge(name, call, shape, results, alone=name not in WAYS)
    for label, result in results.items():
        record_property(label, result if result in ("right", "random") else "refused")


def with_active_arguments(name: str):
    """A call whose constants depend on the input too, where it has any."""
    if reason(name) or name in WAYS or found(name) is None:
        return None
    shape, call = found(name)
    both = lambda h: call(h, active=True)  # noqa: E731
    try:
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")
            x = inputs()[0]
            if random(call, shape) or not settled(both, shape):
                return None
            differs = not torch.equal(Network(both, shape)(x), Network(call, shape)(x))
    except Exception:
        return None
    return (shape, both) if differs else None


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", [n for n in CALLED if len(required(FUNCTIONS[n])) > 1])
def test_every_function_of_several_activations_is_right_or_refused(name):
    way = with_active_arguments(name)
    if way is not None:
        judge(name, way[1], way[0], {}, alone=False)


def test_every_function_is_in_the_table():
    calls_by_hand = set(WAYS) - set(FUNCTIONS)
    assert len(CALLED) >= 1150 and len(FUNCTIONS) - len(CALLED) <= 400, (len(CALLED), len(FUNCTIONS))
    elsewhere = {"hpu", "pretended"}  # devices that are not always there
    assert all(any(part in name for name in FUNCTIONS) for part in {*NOT_CALLED} - elsewhere) or calls_by_hand


@pytest.mark.parametrize("rule", ["rescale", "reveal_cancel"])
def test_what_only_describes_an_activation_is_a_constant(rule):
    describes = lambda h: [  # noqa: E731
        h.dim(),
        h.ndim,
        h.numel(),
        h.size(1),
        h.shape[1],
        len(h),
        h.element_size(),
        h.is_floating_point(),
        h.is_complex(),
        h.is_contiguous(),
        h.stride(1),
        h.requires_grad and 0,
        torch.is_tensor(h),
        torch.numel(h),
        h.nelement(),
        h.ndimension(),
    ]
    x, r = inputs()
    assert complete_or_refuses(Network(lambda h: h * float(sum(describes(h)))), x, r, rule) == "right"
