"""No map is wrong without a word: it is right, or an error names the operation.

Each kind of fault once as a table of operations. The oracles (`oracles.py`) know nothing of the engine: plain
calls of the model, autograd, a twin in plain operations.
"""

import copy
import gc
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from attrain import (
    LRP,
    ZB,
    AttnLRP,
    DeepLift,
    GradCAM,
    Gradient,
    GuidedBackprop,
    InputXGradient,
    IntegratedGradients,
    Occlusion,
    SmoothGrad,
    UnsupportedOperation,
    ZPlus,
    energy_loss,
    epg,
    explain,
    register_rule,
    stochastic_target,
)
from tests.attrain import oracles
from tests.attrain.oracles import (
    DEEPLIFT,
    METHODS,
    RELEVANCE,
    Network,
    attempt,
    autograd_or_refuses,
    close,
    complete_or_refuses,
    inputs,
    refusal,
    same_or_refuses,
)

rules = pytest.mark.parametrize("rule", DEEPLIFT)
all_methods = pytest.mark.parametrize("name", METHODS)
relevance = pytest.mark.parametrize("name", RELEVANCE)


def each(table: dict):
    return pytest.mark.parametrize("case", table)


def zeros(h):
    return torch.zeros(h.shape, dtype=h.dtype)


def ones(h):
    return torch.ones(h.shape, dtype=h.dtype)


# ------------------------------------------------------------------------ written in place into a constant


def written(start, write, view=lambda c: c):
    """A constant, or a view of it, is written to; the constant is what goes on."""

    def operation(h):
        constant = start(h)
        write(view(constant), h)
        return constant

    return operation


def accumulated(h):
    total = torch.zeros_like(h)
    for k in (1, 2):
        total += k * h
    return total


def columns_of(h):
    found = zeros(h)
    for k in range(h.shape[1]):
        found[:, k] = h[:, k]
    return found


def _masked_scatter(c, h):
    c.masked_scatter_(torch.ones(c.shape, dtype=torch.bool), h)


INTO_CONSTANTS = {  # name: (in place, the same without)
    "+= twice": (accumulated, lambda h: zeros(h) + h + 2 * h),
    "zeros.add_": (written(zeros, lambda c, h: c.add_(h)), lambda h: zeros(h) + h),
    "zeros.add_(other=, alpha=)": (written(zeros, lambda c, h: c.add_(other=h, alpha=2)), lambda h: 2 * h),
    "torch.Tensor.add_": (written(zeros, torch.Tensor.add_), lambda h: zeros(h) + h),
    "operator +=": (written(zeros, torch.Tensor.__iadd__), lambda h: zeros(h) + h),
    "ones.sub_": (written(ones, lambda c, h: c.sub_(h)), lambda h: -1 * h + 1.0),
    "ones.mul_": (written(ones, lambda c, h: c.mul_(h)), lambda h: h * 1.0),
    "twos.mul_": (written(lambda h: 2 * ones(h), lambda c, h: c.mul_(h)), lambda h: 2 * h),
    "zeros.copy_": (written(zeros, lambda c, h: c.copy_(h)), lambda h: h * 1.0),
    "zeros.index_add_": (
        written(zeros, lambda c, h: c.index_add_(1, torch.tensor([1, 2, 0]), h[:, :3])),
        lambda h: torch.cat([h[:, [2, 0, 1]], 0 * h[:, 3:]], 1),
    ),
    "zeros.index_copy_": (
        written(zeros, lambda c, h: c.index_copy_(1, torch.arange(h.shape[1]).flip(0), h)),
        lambda h: h.flip(1),
    ),
    "zeros.scatter_": (
        written(zeros, lambda c, h: c.scatter_(1, torch.arange(6).flip(0).expand(len(h), 6), h)),
        lambda h: h.flip(1),
    ),
    "zeros.scatter_add_": (
        written(zeros, lambda c, h: c.scatter_add_(1, torch.arange(6).flip(0).repeat(len(h), 1), h)),
        lambda h: h.flip(1),
    ),
    "zeros.scatter_reduce_(sum)": (
        written(zeros, lambda c, h: c.scatter_reduce_(1, torch.arange(6).flip(0).repeat(len(h), 1), h, "sum")),
        lambda h: h.flip(1),
    ),
    "zeros.index_put_": (
        written(zeros, lambda c, h: c.index_put_((torch.arange(len(h))[:, None], torch.arange(6)), h)),
        lambda h: h * 1.0,
    ),
    "zeros.masked_scatter_": (written(zeros, _masked_scatter), lambda h: h * 1.0),
    "zeros.lerp_": (written(zeros, lambda c, h: c.lerp_(h, 0.5)), lambda h: 0.5 * h),
    "zeros.addcmul_ by a constant": (written(zeros, lambda c, h: c.addcmul_(h, 2 * ones(h))), lambda h: 2 * h),
    "zeros.addmm_": (written(zeros, lambda c, h: c.addmm_(h, 2 * torch.eye(6).double())), lambda h: 2 * h),
    "c[...] =": (written(zeros, lambda c, h: c.__setitem__(..., h)), lambda h: h * 1.0),
    "c[:, k] = for each k": (columns_of, lambda h: h * 1.0),
    "c[:, :3] =": (
        written(zeros, lambda c, h: c.__setitem__((slice(None), slice(0, 3)), h[:, :3])),
        lambda h: torch.cat([h[:, :3], 0 * h[:, 3:]], 1),
    ),
    "a view's +=": (
        written(zeros, lambda v, h: v.add_(h[:, :3]), lambda c: c[:, :3]),
        lambda h: torch.cat([h[:, :3], 0 * h[:, 3:]], 1),
    ),
    "a view of a view": (
        written(zeros, lambda v, h: v.add_(h.flatten()), lambda c: c.view(-1)[:]),
        lambda h: h * 1.0,
    ),
    "the transposed": (written(zeros, lambda v, h: v.add_(h.T), lambda c: c.T), lambda h: h * 1.0),
    "unbound columns": (
        written(zeros, lambda v, h: [a.add_(b) for a, b in zip(v, h.unbind(1))], lambda c: c.unbind(1)),
        lambda h: h * 1.0,
    ),
    "narrow().copy_": (
        written(zeros, lambda v, h: v.copy_(h[:, 1:4]), lambda c: c.narrow(1, 0, 3)),
        lambda h: torch.cat([h[:, 1:4], 0 * h[:, 3:]], 1),
    ),
    "through .data": (written(zeros, lambda v, h: v.copy_(h), lambda c: c.data), lambda h: h.detach()),
    "through .detach()": (written(zeros, lambda v, h: v.copy_(h), lambda c: c.detach()), lambda h: h.detach()),
    "through .numpy()": (
        written(zeros, lambda v, h: v.__setitem__(..., h.detach().numpy()), lambda c: c.numpy()),
        lambda h: h.detach(),
    ),
    "filled with a number of it": (written(zeros, lambda c, h: c.fill_(float(h.detach().sum()))), None),
    "out=": (written(zeros, lambda c, h: torch.add(h.detach(), 1, out=c)), None),
    "out= of a product": (written(zeros, lambda c, h: torch.mul(h.detach(), 2, out=c)), None),
}


@rules
@pytest.mark.parametrize("behind", ["read", "relu"])
@each(INTO_CONSTANTS)
def test_deeplift_follows_what_is_written_into_a_constant(case, rule, behind):
    operation = INTO_CONSTANTS[case][0]
    model = Network(operation if behind == "read" else lambda h: operation(h).relu())
    x, r = inputs()
    whole = case != "filled with a number of it"
    complete_or_refuses(model, x, r, rule, independent=whole)
    if whole:
        complete_or_refuses(model, x, r.repeat(3, 1), rule)


@pytest.mark.parametrize("name", [n for n in METHODS if n not in DEEPLIFT])
@each({k: v for k, v in INTO_CONSTANTS.items() if v[1] and "through" not in k})
def test_what_is_written_into_a_constant_has_the_map_of_what_is_not(case, name):
    operation, plain = INTO_CONSTANTS[case]
    same_or_refuses(Network(operation), Network(plain), inputs()[0], METHODS[name])
    same_or_refuses(
        Network(lambda h: operation(h).relu()), Network(lambda h: plain(h).relu()), inputs()[0], METHODS[name]
    )


@relevance
@each({k: v for k, v in INTO_CONSTANTS.items() if not v[1] or "through" in k})
def test_relevance_does_not_lose_what_autograd_does_not_see_written(case, name):
    with pytest.raises((UnsupportedOperation, ValueError)) as caught:
        oracles.map_of(Network(lambda h: h + INTO_CONSTANTS[case][0](h)), inputs()[0], METHODS[name])
    refusal(caught.value)


# ------------------------------------------------------------------------ truth values and whole numbers


RELU_IN_OTHER_WORDS = {
    "h * (h > 0)": lambda h: h * (h > 0),
    "(h > 0) * h": lambda h: (h > 0) * h,
    "h * (h > 0).to(dtype)": lambda h: h * (h > 0).to(h.dtype),
    "h * (h > 0).double()": lambda h: h * (h > 0).double(),
    "h * (h > 0).type_as(h)": lambda h: h * (h > 0).type_as(h),
    "h * (h > 0).int()": lambda h: h * (h > 0).int(),
    "h * h.gt(0)": lambda h: h * h.gt(0),
    "h * torch.ge(h, 0)": lambda h: h * torch.ge(h, 0),
    "h * ~(h < 0)": lambda h: h * ~(h < 0),
    "h * (h < 0).logical_not()": lambda h: h * (h < 0).logical_not(),
    "h * (1 - (h < 0).long())": lambda h: h * (1 - (h < 0).long()),
    "h * heaviside(h)": lambda h: h * torch.heaviside(h.detach(), torch.zeros((), dtype=h.dtype)),
    "h * sign(h).clamp(min=0)": lambda h: h * h.sign().clamp(min=0),
    "h * signbit(h).logical_not()": lambda h: h * h.signbit().logical_not(),
    "h * (h > 0) of a detached": lambda h: h * (h.detach() > 0),
    "h.where(h > 0, 0)": lambda h: h.where(h > 0, torch.zeros((), dtype=h.dtype)),
    "torch.where(h > 0, h, 0.)": lambda h: torch.where(h > 0, h, 0.0),
    "masked_fill(h < 0, 0)": lambda h: h.masked_fill(h < 0, 0.0),
    "masked_fill_": lambda h: h.clone().masked_fill_(h < 0, 0.0),
    "h[h < 0] = 0": lambda h: _put(h, h < 0, 0.0),
    "c[h > 0] = h[h > 0]": lambda h: _put(zeros(h), h > 0, h[h > 0]),
    "masked_scatter": lambda h: zeros(h).masked_scatter(h > 0, h[h > 0]),
    "index_put(nonzero)": lambda h: zeros(h).index_put((h > 0).nonzero(as_tuple=True), h[h > 0]),
    "clamp(min=0)": lambda h: h.clamp(min=0),
    "clip(0)": lambda h: h.clip(0),
    "clamp_min_": lambda h: h.clone().clamp_min_(0),
    "maximum(h, 0)": lambda h: torch.maximum(h, zeros(h)),
    "max(h, 0)": lambda h: torch.max(h, zeros(h)),
    "fmax(h, 0)": lambda h: torch.fmax(h, zeros(h)),
    "-minimum(-h, 0)": lambda h: -torch.minimum(-h, zeros(h)),
    "max of a stack": lambda h: torch.stack([h, zeros(h)]).max(0)[0],
    "amax of a stack": lambda h: torch.stack([h, zeros(h)]).amax(0),
    "max_pool1d of a pair": lambda h: F.max_pool1d(torch.stack([h, zeros(h)], 2), 2)[..., 0],
    "threshold": lambda h: F.threshold(h, 0.0, 0.0),
    "hardtanh(0, 99)": lambda h: F.hardtanh(h, 0.0, 99.0),
    "leaky_relu(0)": lambda h: F.leaky_relu(h, 0.0),
    "prelu(0)": lambda h: F.prelu(h, torch.zeros(1, dtype=h.dtype)),
    "(h + |h|) / 2": lambda h: (h + h.abs()) / 2,
    "relu of a vmap": lambda h: torch.func.vmap(torch.relu)(h),
}


def _put(target, where, value):
    target = target.clone()
    target[where] = value
    return target


# f(h) that hangs on whole numbers or truth values made of h; name: (operation, words one of which a refusal has)
HANG_ON_NUMBERS = {
    "a hard gate": lambda h: (h.sigmoid() > 0.5).double() * h,
    "a gate alone": lambda h: h + (h > 0.1).double(),
    "one_hot(argmax)": lambda h: h * F.one_hot(h.argmax(1), 6),
    "one_hot(argmax) alone": lambda h: h + F.one_hot(h.argmax(1), 6),
    "top-1 expert": lambda h: torch.stack([h, 2 * h, -h], 1)[torch.arange(len(h)), h[:, :3].argmax(1)],
    "experts one by one": lambda h: _routed(h),
    "topk's indices": lambda h: h.gather(1, h.topk(2, dim=1).indices),
    "topk's values": lambda h: h.topk(2, dim=1).values,
    "topk(...)[1]": lambda h: h.gather(1, h.topk(2, 1)[1]),
    "sort by gather": lambda h: h.gather(1, h.argsort(1)),
    "sort": lambda h: h.sort(1)[0],
    "kthvalue": lambda h: h.kthvalue(2, 1)[0],
    "median": lambda h: h.median(1)[0],
    "a codebook": lambda h: h + torch.arange(24.0).view(4, 6).double()[_nearest(h)],
    "embedding(argmax)": lambda h: h + F.embedding(h.argmax(1), torch.arange(36.0).view(6, 6).double()),
    "bucketize": lambda h: h * torch.bucketize(h, torch.tensor([-1.0, 0.0, 1.0]).double()),
    "searchsorted": lambda h: h * torch.searchsorted(torch.tensor([-1.0, 0.0, 1.0]).double(), h),
    ".long()": lambda h: h * (2 * h).long(),
    ".int() alone": lambda h: h + (2 * h).int().double(),
    "round": lambda h: h + (2 * h).round(),
    "floor": lambda h: h * h.floor(),
    "sign": lambda h: h * h.sign(),
    "lengths": lambda h: h * (torch.arange(6) < (h > 0).sum(1, keepdim=True)),
    "count_nonzero": lambda h: h * h.relu().count_nonzero(1)[:, None],
    "h == h.max()": lambda h: h * (h == h.amax(1, keepdim=True)),
    "isclose": lambda h: h * torch.isclose(h, h.round(), atol=0.2),
    "logical_and": lambda h: h * torch.logical_and(h > -1, h < 1),
    "(h > -1) & (h < 1)": lambda h: h * ((h > -1) & (h < 1)),
    "bitwise xor": lambda h: h * ((h > -1) ^ (h > 1)),
    "any": lambda h: h * (h > 1).any(1, keepdim=True),
    "cumsum of truth": lambda h: h * (h > 0).cumsum(1),
    "where(truth, a, b)": lambda h: torch.where(h > 0, 2 * h, -h),
    "where of constants": lambda h: h + torch.where(h > 0, 1.0, -1.0),
    "torch.eq to copies": lambda h: h * (h.round() == 0),
    "argmin": lambda h: h * (h.argmin(1, keepdim=True) + 1),
    "max(1).indices": lambda h: h * (h.max(1).indices[:, None] + 1),
    "max pool's indices": lambda h: h + F.max_pool1d(h[:, None], 2, return_indices=True)[1][:, 0].repeat(1, 2),
    "max_unpool": lambda h: F.max_unpool1d(*F.max_pool1d(h[:, None], 2, return_indices=True), 2)[:, 0],
    "take_along_dim": lambda h: torch.take_along_dim(h, h.argsort(1, descending=True), 1),
    "index_select by numbers": lambda h: h.index_select(1, (h[0] > 0).long()),
    "h[:, order]": lambda h: h[:, h[0].argsort()],
    "straight-through": lambda h: h + (h.round() - h).detach(),
}


def _nearest(h):
    return torch.cdist(h, torch.arange(24.0).view(4, 6).double() / 10).argmin(1)


def _routed(h):
    found, expert = torch.zeros_like(h), h[:, :2].argmax(1)
    for k in range(2):
        rows = (expert == k).nonzero()[:, 0]
        found[rows] = (k + 1) * h[rows]
    return found


def _if(condition, then=lambda h: 2 * h, other=lambda h: -h):
    return lambda h: then(h) if condition(h) else other(h)


BRANCHES = {
    "if norm > 1": _if(lambda h: h.norm() > 5),
    "if sum > 0": _if(lambda h: h.sum() > 2),
    "if any": _if(lambda h: (h > 2).any()),
    "if all": _if(lambda h: (h < 2).all()),
    "if torch.equal": _if(lambda h: not torch.equal(h, h.clamp(max=2))),
    "if allclose": _if(lambda h: not torch.allclose(h, h.clamp(max=2))),
    ".item()": _if(lambda h: h.max().item() > 2),
    "float()": _if(lambda h: float(h.detach().max()) > 2),
    "int() of it": lambda h: h * int(h.max() * 3),
    ".tolist()": lambda h: h * max(h[:, 0].tolist()),
    "bool() of a count": _if(lambda h: (h > 2).sum()),
    "len(nonzero)": lambda h: h * len((h > 0).nonzero()),
    "h[h > 0] of any length": lambda h: h * len(h[h > 0]),
    "masked_select's numel": lambda h: h * h.masked_select(h > 0).numel(),
    "unique": lambda h: h * len(torch.unique((2 * h).round())),
    "a loop until": lambda h: _halved(h),
    "range(int)": lambda h: sum((h for _ in range(int((h > 0).sum()))), start=0 * h),
    "a slice by number": lambda h: h[:, : int((h[0] > 0).sum()) + 1].sum(1, keepdim=True),
    "index by number": lambda h: h[:, int(h[0].argmax())][:, None] + h,
    "format": lambda h: h * float(f"{h.max():.1f}"),
    "numpy's argmax": lambda h: h * int(h.detach().numpy().argmax()),
    "min and max of Python": lambda h: h * max(h.flatten().detach()),
    "histc": lambda h: h * h.detach().histc(4, -2, 2)[1],
}


def _halved(h):
    while h.abs().max() > 1:
        h = h / 2
    return h


@rules
@each(RELU_IN_OTHER_WORDS | HANG_ON_NUMBERS)
def test_deeplift_knows_that_truth_values_and_whole_numbers_depend_on_the_input(case, rule):
    model = Network((RELU_IN_OTHER_WORDS | HANG_ON_NUMBERS)[case])
    alone = "[0]" not in case and case not in ("index_select by numbers", "h[:, order]")
    for seed in (1, 2):
        x, r = inputs(seed=seed)
        complete_or_refuses(model, x, r, rule, independent=alone)
        complete_or_refuses(model, x, r.repeat(3, 1), rule, independent=alone)


@rules
@each(BRANCHES)
def test_deeplift_refuses_branches_that_reference_and_input_take_apart(case, rule):
    model = Network(BRANCHES[case])
    for seed in (1, 2):
        x, r = inputs(seed=seed)
        complete_or_refuses(model, x, r, rule, independent=False)
        complete_or_refuses(model, x, 0 * r, rule, independent=False)


A_MAXIMUM = ("max of a stack", "amax of a stack", "max_pool1d of a pair")  # relevance goes to the largest


@relevance
@each({k: v for k, v in RELU_IN_OTHER_WORDS.items() if k not in A_MAXIMUM})
def test_a_relu_in_other_words_has_relus_map_or_is_refused(case, name):
    same_or_refuses(Network(RELU_IN_OTHER_WORDS[case]), Network(torch.relu), inputs()[0], METHODS[name])


# A piece of the model chosen by a condition, or numbers put in order: the map of the piece, or a refusal.
CHOSEN = (
    "if ",
    "a loop",
    "a slice",
    "index by",
    "range(",
    "bool(",
    "float()",
    ".item()",
    "max_unpool",
    "sort",
    "kthvalue",
    "median",
    "topk's values",
)
SELECTIONS = (
    HANG_ON_NUMBERS | BRANCHES | {"h * h.detach()": lambda h: h * h.detach(), "detach": lambda h: h + h.detach()}
)
PIECES = {k: v for k, v in SELECTIONS.items() if k.startswith(CHOSEN) and k != "sort by gather"}


@relevance
@each({k: v for k, v in SELECTIONS.items() if k not in PIECES})
def test_relevance_refuses_selections_made_from_activations(case, name):
    with pytest.raises((UnsupportedOperation, ValueError)) as caught:
        oracles.map_of(Network(SELECTIONS[case]), inputs()[0], METHODS[name])
    refusal(caught.value)


@each(PIECES)
def test_relevance_of_a_piece_that_the_input_chose_is_that_of_the_piece(case):
    x = inputs()[0]
    found = attempt(lambda: oracles.map_of(Network(PIECES[case]), x, LRP(oracles.EPSILON)))
    if not isinstance(found, str):
        close(found, x * oracles.gradient_by_autograd(Network(PIECES[case]), x), case)


@each(RELU_IN_OTHER_WORDS | HANG_ON_NUMBERS | BRANCHES)
def test_gradients_are_autograds(case):
    autograd_or_refuses(Network((RELU_IN_OTHER_WORDS | HANG_ON_NUMBERS | BRANCHES)[case]), inputs()[0])


# ------------------------------------------------------------------------ products of three and more


@torch.overrides.wrap_torch_function(lambda a, b, c: (a, b, c))
def triple(a, b, c):
    return a * b * c


PRODUCTS = {
    "einsum of three": lambda h: torch.einsum("ni,ni,ni->ni", h, h, h),
    "einsum of three that differ": lambda h: torch.einsum("ni,nj,ni->nj", h, h.sigmoid(), h.tanh()),
    "einsum of four": lambda h: torch.einsum("ni,nj,nk,ni->njk", h, h[:, :2], h[:, 2:4], h),
    "einsum of a list": lambda h: torch.einsum("ni,ni,ni->n", [h, h, h])[:, None],
    "einsum of three with a constant": lambda h: torch.einsum("ni,ni,i->n", h, h, torch.arange(6.0).double())[:, None],
    "selective scan": lambda h: torch.einsum("bld,bln,bld->bdn", *[h.view(-1, 2, 3)] * 3),
    "bilinear, active weight": lambda h: torch.stack(
        [F.bilinear(v[None, :2], v[None, 2:4], v.view(1, 2, 3)[..., :2].contiguous())[0] for v in h]
    ),
    "bilinear": lambda h: F.bilinear(h, h, torch.arange(72.0).view(2, 6, 6).double()),
    "multi_dot": lambda h: torch.linalg.multi_dot([h, h.mT, h]),
    "chain_matmul": lambda h: h @ h.mT @ h,
    "addcmul": lambda h: torch.addcmul(h, h, h),
    "addcdiv": lambda h: torch.addcdiv(h, h, h.exp()),
    "addmm": lambda h: torch.addmm(h, h[:, :3], h[:3]),
    "baddbmm": lambda h: torch.baddbmm(h[:, None], h[:, None], h[:, :, None].expand(-1, 6, 6)),
    "prod": lambda h: h.prod(1, keepdim=True),
    "prod of three": lambda h: h[:, :3].prod(1, keepdim=True),
    "cumprod": lambda h: h.cumprod(1),
    "pow by itself": lambda h: h.exp() ** h,
    "h * h * h": lambda h: h * h * h,
    "lerp by itself": lambda h: torch.lerp(h, 2 * h, h.sigmoid()),
    "tensordot": lambda h: torch.tensordot(h, h.T, 1),
    "outer": lambda h: torch.stack([torch.outer(v, v).flatten() for v in h]),
    "kron": lambda h: torch.stack([torch.kron(v, v) for v in h]),
    "cross": lambda h: torch.cross(h[:, :3], h[:, 3:], 1),
    "det": lambda h: torch.det(torch.stack([h[:, :3], h[:, 3:], h[:, 1:4]], 1))[:, None],
    "inverse": lambda h: torch.linalg.inv(h[:, :4].view(-1, 2, 2) + 3 * torch.eye(2)).flatten(1),
    "cosine_similarity": lambda h: F.cosine_similarity(h[:, :3], h[:, 3:])[:, None],
    "cdist": lambda h: torch.cdist(h[:, None, :3], h[:, None, 3:])[:, 0],
    "pairwise_distance": lambda h: F.pairwise_distance(h[:, :3], h[:, 3:], keepdim=True),
    "normalize": lambda h: F.normalize(h),
}
MIXING = ("multi_dot", "chain_matmul", "addmm", "tensordot")


@rules
@each(PRODUCTS)
def test_deeplift_of_products_is_complete(case, rule):
    x, r = inputs()
    complete_or_refuses(Network(PRODUCTS[case]), x, r, rule, independent=case not in MIXING)


@relevance
@each({k: v for k, v in PRODUCTS.items()})
def test_relevance_refuses_products_of_activations(case, name):
    with pytest.raises((UnsupportedOperation, ValueError)) as caught:
        oracles.map_of(Network(PRODUCTS[case]), inputs()[0], METHODS[name])
    refusal(caught.value)


@each(PRODUCTS)
def test_gradients_of_products_are_autograds(case):
    autograd_or_refuses(Network(PRODUCTS[case]), inputs()[0])


def test_a_registered_product_of_three_is_complete_or_refused():
    register_rule(triple, "product")
    x, r = inputs()
    complete_or_refuses(Network(lambda h: triple(h, h.sigmoid(), h.tanh())), x, r)
    complete_or_refuses(Network(lambda h: triple(h, h, h)), x, r)
    complete_or_refuses(Network(lambda h: triple(h, 2.0, h)), x, r)


def _own(f, rule):
    own = torch.overrides.wrap_torch_function(lambda x: (x,))(f)
    register_rule(own, rule)
    return own


@pytest.mark.parametrize(
    "f, rule",
    [
        (lambda x: x * x, "linear"),
        (lambda x: x.topk(2, 1)[0], "linear"),
        (lambda x: x.prod(1, keepdim=True), "product"),
        (lambda x: x.softmax(1), "elementwise"),
        (lambda x: x.sin(), "product"),
    ],
    ids=["a square is linear", "topk is linear", "prod is a product", "softmax is elementwise", "sin is a product"],
)
def test_a_rule_that_does_not_hold_is_noticed(f, rule):
    x, r = inputs()
    own = _own(f, rule)
    with pytest.raises((UnsupportedOperation, ValueError, UserWarning)):  # warnings are errors here
        explain(Network(own), x, 0, DeepLift(r))


# ------------------------------------------------------------------------ where the place is what depends on the input


def _grid(h):
    image, grid = h[:, :9].view(-1, 1, 3, 3), h[:, 9:27].view(-1, 3, 3, 2).tanh()
    return F.grid_sample(image, grid, align_corners=False)


def _transformer(h):
    theta = torch.eye(2, 3).double() + 0.3 * h[:, 18:24].view(-1, 2, 3).tanh()
    image = h[:, :9].view(-1, 1, 3, 3)
    return F.grid_sample(image, F.affine_grid(theta, image.shape, align_corners=False), align_corners=False)


CONSTANT_IMAGE = torch.arange(9.0).view(1, 1, 3, 3).double()
PLACES = {
    "flow": _grid,
    "spatial transformer": _transformer,
    "constant image": lambda h: F.grid_sample(
        CONSTANT_IMAGE.expand(len(h), -1, -1, -1), h[:, :18].view(-1, 3, 3, 2).tanh(), align_corners=False
    ),
    "grid by name": lambda h: F.grid_sample(
        input=h[:, :9].view(-1, 1, 3, 3), grid=h[:, 9:27].view(-1, 3, 3, 2).tanh(), align_corners=True
    ),
    "nearest": lambda h: F.grid_sample(
        h[:, :9].view(-1, 1, 3, 3), h[:, 9:27].view(-1, 3, 3, 2).tanh(), mode="nearest", align_corners=False
    ),
    "torch.grid_sampler": lambda h: torch.grid_sampler(
        h[:, :9].view(-1, 1, 3, 3), h[:, 9:27].view(-1, 3, 3, 2).tanh(), 0, 0, False
    ),
    "scatter to places": lambda h: zeros(h).scatter_add(1, (h.sigmoid() * 5).long(), h),
    "index_add at places": lambda h: zeros(h).index_add(1, (h[0].sigmoid() * 5).long(), h),
    "roi_align": lambda h: _roi_align(h),
    "deform_conv2d": lambda h: _deformed(h),
}


def _roi_align(h):
    from torchvision.ops import roi_align

    boxes = torch.cat([torch.arange(len(h))[:, None].double(), h[:, 9:11].sigmoid(), 2 + h[:, 11:13].sigmoid()], 1)
    return roi_align(h[:, :9].view(-1, 1, 3, 3), boxes, 2)


def _deformed(h):
    from torchvision.ops import deform_conv2d

    return deform_conv2d(h[:, :9].view(-1, 1, 3, 3), h[:, 9:17].view(-1, 8, 1, 1).tanh().repeat(1, 1, 2, 2),
                         torch.ones(1, 1, 2, 2).double())  # fmt: skip


@rules
@each(PLACES)
def test_deeplift_of_places_that_depend_on_the_input(case, rule):
    x, r = inputs()
    complete_or_refuses(Network(PLACES[case], (27,)), x, r, rule, independent="index_add" not in case)


@relevance
@each(PLACES)
def test_relevance_refuses_places_that_depend_on_the_input(case, name):
    with pytest.raises((UnsupportedOperation, ValueError)) as caught:
        oracles.map_of(Network(PLACES[case], (27,)), inputs()[0], METHODS[name])
    refusal(caught.value)


# ------------------------------------------------------------------------ what autograd cannot see


class Square(torch.autograd.Function):
    @staticmethod
    def forward(ctx, h):
        ctx.save_for_backward(h)
        return h * h

    @staticmethod
    def backward(ctx, g):
        return 2 * ctx.saved_tensors[0] * g


def without_graph(f):
    def operation(h):
        with torch.no_grad():
            gate = f(h)
        return h * gate

    return operation


def elsewhere(f):
    """In another thread."""

    def operation(h):
        with ThreadPoolExecutor(1) as pool:
            return h * pool.submit(f, h).result()

    return operation


def _quietly(f):
    def silent(h):
        with torch.no_grad():
            return f(h)

    return silent


BY_TORCH = {  # autograd says that these are constants; DeepLIFT that they are none
    "no_grad": without_graph(torch.sigmoid),
    "no_grad, h * h": without_graph(lambda h: h * h),
    "set_grad_enabled(False)": lambda h: h * _ungraded(h),
    "detach": lambda h: h * h.detach(),
    "detach().clone()": lambda h: h * h.detach().clone(),
    "detach_": lambda h: h * h.clone().detach_(),
    ".data": lambda h: h * h.data,
    ".data of sigmoid": lambda h: h * h.sigmoid().data,
    "no_grad of a Function": without_graph(Square.apply),
    "torch.asarray": lambda h: h * torch.asarray(h.detach()),
    "as_tensor": lambda h: h * torch.as_tensor(h.detach()),
    "a copy into a constant": lambda h: h * torch.empty(h.shape, dtype=h.dtype).copy_(h.detach()),
    "requires_grad_(False)": lambda h: h * h.detach().requires_grad_(False),
    "a Parameter of it": lambda h: h * nn.Parameter(h.detach()),
    "another thread": elsewhere(_quietly(torch.sigmoid)),
    "another thread, detached": elsewhere(lambda h: h.detach().sigmoid()),
    "stop-gradient by zero": lambda h: h * (h - h.detach() + 1),
}
OUT_OF_TORCH = {  # nobody can follow these
    "numpy": lambda h: h * torch.from_numpy(h.detach().numpy() ** 2),
    "np.asarray": lambda h: h * torch.from_numpy(np.tanh(np.asarray(h.detach()))),
    ".numpy(force=True)": lambda h: h * torch.from_numpy(h.numpy(force=True) ** 2),
    "__array__": lambda h: h * torch.tensor(h.detach().__array__()),
    "tolist": lambda h: h * torch.tensor(h.tolist(), dtype=h.dtype),
    "item by item": lambda h: h * torch.tensor([[float(v) for v in row] for row in h.detach()], dtype=h.dtype),
    "DLPack": lambda h: h * torch.from_dlpack(torch.utils.dlpack.to_dlpack(h.detach())),
    "memoryview": lambda h: h * torch.frombuffer(bytearray(h.detach().numpy().tobytes()), dtype=h.dtype).view(h.shape),
    "deepcopy": lambda h: h * copy.deepcopy(h.detach()),
    "untyped_storage": lambda h: h * _stored(h),
}


def _ungraded(h):
    before = torch.is_grad_enabled()
    torch.set_grad_enabled(False)
    gate = h.sigmoid()
    torch.set_grad_enabled(before)
    return gate


def _stored(h):
    twin = torch.empty(0, dtype=h.dtype)
    return twin.set_(h.detach().clone().untyped_storage(), 0, h.shape)


@rules
@each(BY_TORCH | OUT_OF_TORCH)
def test_deeplift_knows_what_autograd_does_not(case, rule):
    x, r = inputs()
    complete_or_refuses(Network((BY_TORCH | OUT_OF_TORCH)[case]), x, r, rule)


@relevance
@each(BY_TORCH | OUT_OF_TORCH)
def test_relevance_refuses_what_autograd_does_not_see(case, name):
    with pytest.raises((UnsupportedOperation, ValueError)) as caught:
        oracles.map_of(Network((BY_TORCH | OUT_OF_TORCH)[case]), inputs()[0], METHODS[name])
    refusal(caught.value)


@each(BY_TORCH)
def test_gradients_with_parts_taken_out_of_the_graph_are_autograds(case):
    autograd_or_refuses(Network(BY_TORCH[case]), inputs()[0])


@each(OUT_OF_TORCH)
def test_gradients_with_parts_outside_torch_are_true_or_refused(case):
    autograd_or_refuses(Network(OUT_OF_TORCH[case]), inputs()[0], unseen=True)


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
@pytest.mark.parametrize("name", [*RELEVANCE, *DEEPLIFT])
@pytest.mark.parametrize("graph", [True, False], ids=["with a graph", "no_grad"])
def test_scripted_parts_are_refused(name, graph):
    scripted = torch.jit.script(nn.Sequential(nn.Linear(6, 6), nn.Sigmoid()).double())
    model = Network((lambda h: h * scripted(h)) if graph else without_graph(scripted))
    with pytest.raises(UnsupportedOperation, match=r"cannot be seen|script|no rule"):
        oracles.map_of(model, inputs()[0], METHODS[name])


@pytest.mark.parametrize("name", [*RELEVANCE, *DEEPLIFT, "guided", "bcos"])
@pytest.mark.parametrize("graph", [True, False], ids=["with a graph", "no_grad"])
def test_a_function_of_autograd_is_refused_by_its_name_and_says_how_to_register(name, graph):
    model = Network(Square.apply if graph else without_graph(Square.apply))
    if not graph and name in ("guided", "bcos"):
        return  # gradients: autograd's
    with pytest.raises(UnsupportedOperation, match="Square") as caught:
        oracles.map_of(model, inputs()[0], METHODS[name])
    assert "register_rule" in str(caught.value)


# ------------------------------------------------------------------------ state that a model keeps


class Remembers(nn.Module):
    """Multiplies activations by those of the call before."""

    def __init__(self, how):
        super().__init__()
        torch.manual_seed(3)
        self.first, self.how, self.before = nn.Linear(5, 3).double(), how, None

    def forward(self, x):
        h = self.first(x)
        out = h if self.before is None else h * self.before
        self.before = self.how(h)
        return out


@rules
@pytest.mark.parametrize(
    "how", [lambda h: h.detach(), lambda h: h.data, lambda h: h.detach().clone(), lambda h: (h > 0).double(),
            lambda h: h.detach().abs().amax(), lambda h: torch.sigmoid(h).detach()],
    ids=["detach", "data", "clone", "truth", "largest", "sigmoid"],
)  # fmt: skip
def test_what_a_model_kept_from_the_call_before_is_a_constant(how, rule):
    model, (x, r) = Remembers(how), inputs()
    attempt(lambda: explain(model, x, 0, DeepLift(r, rule)).heatmap)  # keeps something, marked or not
    before = model.before if model.before is None else model.before.detach().clone()
    plain = copy.copy(model)
    plain._parameters = dict(model._parameters)
    plain.forward = lambda v: model.first(v) if before is None else model.first(v) * before
    found = attempt(lambda: explain(model, x, 0, DeepLift(r, rule)).heatmap)
    if not isinstance(found, str):
        close(found.sum(1), oracles.difference(plain, x, r), "the second map's sum")


def test_a_model_that_kept_a_graph_can_be_used_after_explain():
    model, (x, r) = Remembers(lambda h: h), inputs()
    for method in (InputXGradient(), DeepLift(r)):
        attempt(lambda method=method: explain(model, x, 0, method).heatmap)
        attempt(lambda method=method: explain(model, x, 0, method).heatmap)
    model.before = None
    with torch.no_grad():
        wanted = (Remembers(lambda h: h)(x) - Remembers(lambda h: h)(r.expand_as(x)))[:, 0]
    close(explain(model, x, 0, DeepLift(r)).heatmap.sum(1), wanted, "sum")


# ------------------------------------------------------------------------ operations along the axis of samples

FIRST_AXIS = {
    "cumsum": lambda h: h.cumsum(0),
    "flip": lambda h: h.flip(0),
    "roll": lambda h: h.roll(1, 0),
    "sum": lambda h: h - h.sum(0),
    "mean": lambda h: h - h.mean(0, keepdim=True),
    "softmax": lambda h: h.softmax(0),
    "amax": lambda h: h - h.amax(0),
    "max": lambda h: h - h.max(0)[0],
    "var": lambda h: h / (1 + h.var(0)),
    "norm": lambda h: h / (1 + h.norm(dim=0)),
    "batch statistics": lambda h: F.batch_norm(h, None, None, training=True),
    "transposed product": lambda h: h @ h.T @ h,
    "index_select": lambda h: h.index_select(0, torch.tensor([2, 0, 1])),
    "h[[2, 0, 1]]": lambda h: h[[2, 0, 1]],
    "repeat and cut": lambda h: h.repeat(2, 1)[1 : len(h) + 1],
    "cat": lambda h: torch.cat([h[1:], h[:1]]),
    "first sample": lambda h: h - h[0],
    "unbind": lambda h: torch.stack(h.unbind(0)[::-1]),
    "split": lambda h: torch.cat(h.split([1, len(h) - 1])[::-1]),
    "chunk": lambda h: torch.cat(h.chunk(3)[::-1]),
    "unfold": lambda h: h.unfold(0, 3, 1).flatten(1).expand(len(h), -1),
    "view(-1)": lambda h: h.reshape(-1).roll(1).view(h.shape),
    "conv1d along samples": lambda h: F.conv1d(h.T[:, None], torch.ones(1, 1, 3).double(), padding=1)[:, 0].T,
    "max_pool1d along samples": lambda h: F.max_pool1d(h.T[:, None], 3, 1, 1)[:, 0].T,
    "einsum over samples": lambda h: torch.einsum("ni,mi->mn", h, h),
    "scatter_add over samples": lambda h: zeros(h).scatter_add(0, torch.tensor([[2], [0], [2]]).expand(3, 6), h),
    "index_add over samples": lambda h: zeros(h).index_add(0, torch.tensor([2, 0, 2]), h),
    "diff": lambda h: h.diff(dim=0, prepend=h[:1]),
    "sorted by samples": lambda h: h.sort(0)[0],
    "batched first layer norm": lambda h: F.layer_norm(h.T, (3,)).T,
    "attention over samples": lambda h: F.scaled_dot_product_attention(h[None], h[None], h[None])[0],
    "triu": lambda h: h.triu(),
    "diagonal": lambda h: h + h.diagonal().sum(),
    "cumsum by name": lambda h: torch.cumsum(input=h, dim=0),
    "cummax": lambda h: h.cummax(0)[0],
    "logsumexp": lambda h: h - h.logsumexp(0),
    "rot90": lambda h: h[:, :3].rot90(),
}


@rules
@pytest.mark.parametrize("reference", ["shared", "one a sample"])
@each(FIRST_AXIS)
def test_deeplift_along_the_axis_of_samples(case, reference, rule):
    x, r = inputs()
    r = r if reference == "shared" else r.repeat(len(x), 1)
    complete_or_refuses(Network(FIRST_AXIS[case]), x, r, rule, independent=False)


@each(FIRST_AXIS)
def test_a_reference_shared_or_repeated_gives_one_map(case):
    x, r = inputs()
    maps = [
        attempt(lambda r=r: explain(Network(FIRST_AXIS[case]), x, 0, DeepLift(r)).heatmap) for r in (r, r.repeat(3, 1))
    ]
    if not any(isinstance(m, str) for m in maps):
        close(*maps, "shared and repeated")


# ------------------------------------------------------------------------ weights made from the input


def _kernel(h, *shape):
    return h[0, : torch.Size(shape).numel()].view(shape)


DYNAMIC_WEIGHTS = {
    "F.linear": lambda h: F.linear(h, _kernel(h, 1, 24)),
    "F.linear(weight=)": lambda h: F.linear(h, weight=_kernel(h, 1, 24)),
    "F.linear, bias": lambda h: F.linear(h, torch.ones(4, 24).double(), _kernel(h, 4)),
    "F.linear, constant input": lambda h: h + F.linear(torch.ones(len(h), 1).double(), h[0, :, None]),
    "conv1d": lambda h: F.conv1d(h[:, None], _kernel(h, 2, 1, 3)),
    "conv1d(input=, weight=)": lambda h: F.conv1d(input=h[:, None], weight=_kernel(h, 2, 1, 3)),
    "conv2d": lambda h: F.conv2d(h.view(-1, 1, 4, 6), _kernel(h, 2, 1, 3, 3)),
    "conv_transpose1d": lambda h: F.conv_transpose1d(h[:, None], _kernel(h, 1, 2, 3)),
    "conv2d in groups, one a sample": lambda h: F.conv2d(
        h.view(1, -1, 4, 6), h[:, None, :4].reshape(-1, 1, 2, 2), groups=len(h)
    ).view(len(h), -1),
    "matmul": lambda h: h[:, None, :4] @ h[:, 4:20].view(-1, 4, 4),
    "torch.matmul(input=, other=)": lambda h: torch.matmul(input=h[:, None, :4], other=h[:, 4:20].view(-1, 4, 4)),
    "bmm": lambda h: torch.bmm(h[:, None, :4], h[:, 4:20].view(-1, 4, 4)),
    "batch_norm's weight": lambda h: F.batch_norm(h, zeros(h[0]), ones(h[0]), weight=h[0]),
    "batch_norm's mean": lambda h: F.batch_norm(h, h[0].detach(), ones(h[0])),
    "batch_norm's variance": lambda h: F.batch_norm(h, zeros(h[0]), h[0].detach().exp()),
    "layer_norm's weight": lambda h: F.layer_norm(h, (24,), weight=h[0]),
    "prelu's weight": lambda h: F.prelu(h, h[0, :1]),
    "embedding's weight": lambda h: h + F.embedding(torch.arange(len(h)), h),
    "addmm": lambda h: torch.addmm(h[:, :4], h, h[:, :4].new_ones(24, 4) * h[0, :24, None]),
    "mul(other=)": lambda h: torch.mul(h, other=h),
    "div(other=)": lambda h: torch.div(h, other=h.exp()),
    "clamp's bound": lambda h: h.clamp(min=h[:, :1]),
    "hypernetwork": lambda h: torch.stack([F.linear(v, w.view(4, 6)) for v, w in zip(h[:, :6], h)]),
}
BIASES = ("F.linear, bias", "F.linear, constant input", "batch_norm's mean", "embedding's weight", "clamp's bound")


@rules
@each(DYNAMIC_WEIGHTS)
def test_deeplift_with_weights_made_from_the_input(case, rule):
    x, r = inputs()
    complete_or_refuses(Network(DYNAMIC_WEIGHTS[case], (24,)), x, r, rule, independent=False)


@relevance
@each({k: v for k, v in DYNAMIC_WEIGHTS.items() if k not in BIASES})
def test_relevance_refuses_weights_made_from_the_input(case, name):
    with pytest.raises((UnsupportedOperation, ValueError)) as caught:
        oracles.map_of(Network(DYNAMIC_WEIGHTS[case], (24,)), inputs()[0], METHODS[name])
    refusal(caught.value)


@each(DYNAMIC_WEIGHTS)
def test_gradients_with_weights_made_from_the_input_are_autograds(case):
    autograd_or_refuses(Network(DYNAMIC_WEIGHTS[case], (24,)), inputs()[0])


# ------------------------------------------------------------------------ one sum, one map


SUMS = {
    "h + k(h)": lambda h, k: h + k,
    "h.add(other=)": lambda h, k: h.add(other=k),
    "torch.add(h, other=)": lambda h, k: torch.add(h, other=k),
    "torch.add(input=, other=)": lambda h, k: torch.add(input=h, other=k),
    "torch.add(alpha=1)": lambda h, k: torch.add(h, k, alpha=1),
    "clone().add_": lambda h, k: h.clone().add_(k),
    "clone() +=": lambda h, k: torch.Tensor.__iadd__(h.clone(), k),
    "clone().add_(other=)": lambda h, k: h.clone().add_(other=k),
    "__radd__": lambda h, k: k.__radd__(h),
    "zeros += twice": lambda h, k: torch.zeros_like(h).add_(h).add_(k),
    "stack([h, k]).sum(0)": lambda h, k: torch.stack([h, k]).sum(0),
    "stack(1).sum(1)": lambda h, k: torch.stack([h, k], 1).sum(1),
    "sum([h, k])": lambda h, k: sum([h, k]),
    "cat.view.sum": lambda h, k: torch.cat([h, k], 1).view(len(h), 2, -1).sum(1),
    "2 * mean of a stack": lambda h, k: 2 * torch.stack([h, k]).mean(0),
    "einsum of a stack": lambda h, k: torch.einsum("kni->ni", torch.stack([h, k])),
    "h - (-k)": lambda h, k: h - (-k),
    "h.sub(other=-k)": lambda h, k: h.sub(other=-k),
    "sub(alpha=-1)": lambda h, k: torch.sub(h, k, alpha=-1),
    "index_add": lambda h, k: h.index_add(0, torch.arange(len(h)), k),
    "scatter_add": lambda h, k: h.scatter_add(1, torch.arange(6).expand(len(h), 6), k),
    "addcmul by one": lambda h, k: torch.addcmul(h, k, ones(k)),
    "linear of a cat": lambda h, k: F.linear(torch.cat([h, k], 1), torch.eye(6).repeat(1, 2).double()),
    "avg_pool1d": lambda h, k: 2 * F.avg_pool1d(torch.stack([h, k], 2), 2)[..., 0],
    "cumsum's end": lambda h, k: torch.stack([h, k]).cumsum(0)[1],
}


NOT_A_SUM_TO_ZPLUS = (  # a layer of its own, three terms with an ε each, or an average
    "linear of a cat", "zeros += twice", "2 * mean of a stack", "einsum of a stack", "avg_pool1d", "cumsum's end",
)  # fmt: skip


@all_methods
@each(SUMS)
def test_a_sum_of_activations_has_one_map_however_written(case, name):
    layer = torch.randn(6, 6, generator=torch.Generator().manual_seed(5)).double()
    of = lambda f: Network(lambda h: f(h.relu(), F.linear(h, layer).relu()))  # noqa: E731
    if name in ("zplus", "dual") and case in NOT_A_SUM_TO_ZPLUS:
        return
    same_or_refuses(of(SUMS[case]), of(SUMS["h + k(h)"]), inputs()[0], METHODS[name])


DIFFERENCES = {
    "h - k": lambda h, k: h - k,
    "torch.sub(h, other=k)": lambda h, k: torch.sub(h, other=k),
    "torch.subtract(input=, other=)": lambda h, k: torch.subtract(input=h, other=k),
    "h.sub_(other=)": lambda h, k: h.clone().sub_(other=k),
    "rsub": lambda h, k: torch.rsub(k, other=h),
    "torch.add(alpha=-1)": lambda h, k: torch.add(h, other=k, alpha=-1),
    "h.__rsub__": lambda h, k: k.__rsub__(h),
}


@all_methods
@each(DIFFERENCES)
def test_a_difference_of_activations_has_one_map_or_none(case, name):
    layer = torch.randn(6, 6, generator=torch.Generator().manual_seed(5)).double()
    of = lambda f: Network(lambda h: f(h.relu(), F.linear(h, layer).relu()))  # noqa: E731
    maps = [
        attempt(lambda f=f: oracles.map_of(of(f), inputs()[0], METHODS[name]))
        for f in (DIFFERENCES["h - k"], DIFFERENCES[case])
    ]
    assert isinstance(maps[0], str) == isinstance(maps[1], str), maps
    if not isinstance(maps[0], str):
        close(*maps, case, 1e-9)


# ------------------------------------------------------------------------ batch norm, whatever its name


def _statistics(h):
    return zeros(h[0]) + 0.3, ones(h[0]) * 2


BATCH_NORMS = {
    "F.batch_norm": lambda h, t: F.batch_norm(h, *_statistics(h), training=t),
    "torch.batch_norm": lambda h, t: torch.batch_norm(h, None, None, *_statistics(h), t, 0.1, 1e-5, False),
    "torch.native_batch_norm": lambda h, t: torch.native_batch_norm(h, None, None, *_statistics(h), t, 0.1, 1e-5)[0],
    "by name": lambda h, t: F.batch_norm(
        input=h, running_mean=_statistics(h)[0], running_var=_statistics(h)[1], training=t
    ),
}


@all_methods
@pytest.mark.parametrize("training", [False, True], ids=["eval", "training"])
@each(BATCH_NORMS)
def test_batch_norm_has_one_map_under_every_name(case, training, name):
    maps = [attempt(lambda f=f: oracles.map_of(Network(lambda h: f(h, training).relu()), inputs()[0], METHODS[name]))
            for f in (BATCH_NORMS["F.batch_norm"], BATCH_NORMS[case])]  # fmt: skip
    if not any(isinstance(m, str) for m in maps):
        close(*maps, case, 1e-9)


# ------------------------------------------------------------------------ a user's function with the name of torch's


NAMES_OF_TORCH = "gather relu relu_ add mul cat detach dropout linear conv1d batch_norm max_pool2d softmax to".split()


def _named(name):
    @torch.overrides.wrap_torch_function(lambda h: (h,))
    def own(h):
        with torch._C.DisableTorchFunction():
            return h * h * h

    own.__name__ = own.__qualname__ = name
    return own


@pytest.mark.parametrize("name", [*RELEVANCE, *DEEPLIFT])
@pytest.mark.parametrize("called", NAMES_OF_TORCH)
def test_a_function_of_the_users_is_not_torchs_of_the_same_name(called, name):
    operation, (x, r) = _named(called), inputs()
    if name in DEEPLIFT:
        complete_or_refuses(Network(operation), x, r, name)
        return
    with pytest.raises(UnsupportedOperation):
        oracles.map_of(Network(operation), x, METHODS[name])


@pytest.mark.parametrize("called", NAMES_OF_TORCH)
def test_the_gradient_of_a_users_function_is_autograds(called):
    autograd_or_refuses(Network(_named(called)), inputs()[0])


# ------------------------------------------------------------------------ errors that come from elsewhere


def _recurrent(kind, **options):
    torch.manual_seed(4)
    net = kind(3, 4, batch_first=True, **options).double()
    return lambda h: net(h.view(-1, 8, 3))[0]


def _cell(kind):
    torch.manual_seed(4)
    net = kind(6, 4).double()
    return lambda h: net(h[:, :6])


def _scattered(h, reduce, **options):
    return zeros(h).scatter_reduce(1, torch.arange(12).repeat(2).expand(len(h), 24), h, reduce, **options)


def _packed(h):
    from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

    packed = pack_padded_sequence(h.view(-1, 8, 3), torch.tensor([8, 5, 2]), batch_first=True)
    return pad_packed_sequence(packed, batch_first=True)[0]


def _hooked(h):
    layer = nn.Linear(24, 4).double()
    layer.weight.data.fill_(0.1)
    layer.bias.data.fill_(0.2)
    layer.register_full_backward_hook(lambda module, g, out: None)
    return layer(h)


def _inner_gradient(h):
    h = h if h.requires_grad else h.detach().requires_grad_()
    with torch.enable_grad():
        energy = (h.sigmoid() * h).sum()
        (g,) = torch.autograd.grad(energy, h, create_graph=True)
    return h - 0.1 * g


class Labelled(torch.Tensor):
    """A subclass without a __torch_function__ of its own."""


def _inference(h):
    with torch.inference_mode():
        gate = h.sigmoid()
    return h * gate.clone()


def _checkpoint(reentrant):
    from torch.utils.checkpoint import checkpoint

    return lambda h: checkpoint(lambda v: v.relu().tanh() + v, h, use_reentrant=reentrant)


UNCLEAR = {  # name: (operation, words of which a refusal has one)
    "view(-1, F)": (lambda h: h.relu().view(-1, 4).relu().view(-1, 24), ["view"]),
    "view into windows": (
        lambda h: h.view(-1, 2, 3, 4).transpose(1, 2).reshape(-1, 4).softmax(1).view(-1, 24), ["view"],
    ),
    "unflatten of samples": (lambda h: h.repeat_interleave(2, 0).relu().view(-1, 2, 24).sum(1), ["view"]),
    "index.expand_as(h)": (lambda h: zeros(h).scatter_add(1, torch.arange(24).flip(0).expand_as(h), h), ["scatter"]),
    "index.view_as(h)": (lambda h: h.gather(1, torch.arange(h.numel()).remainder(24).view_as(h)), ["gather"]),
    "ones.type_as(h)": (lambda h: h + torch.ones(24).type_as(h), ["type_as"]),
    "ones.to(h)": (lambda h: h * torch.ones(24).to(h), ["to"]),
    "h.new_ones": (lambda h: h.new_ones(24) * 2 * h, ["new_ones"]),
    "zeros_like, ones_like, full_like": (lambda h: torch.zeros_like(h) + torch.full_like(h, 2) * h, ["like"]),
    "h.shape of h": (lambda h: h.reshape(h.size(0), h.numel() // len(h)) * h.ndim, ["size"]),
    "scatter_reduce sum": (lambda h: _scattered(h, "sum"), ["scatter_reduce"]),
    "scatter_reduce mean": (lambda h: _scattered(h, "mean", include_self=False), ["scatter_reduce"]),
    "scatter_reduce amax": (lambda h: _scattered(h, "amax"), ["scatter_reduce"]),
    "scatter_reduce prod": (lambda h: _scattered(h, "prod"), ["scatter_reduce"]),
    "index_reduce": (
        lambda h: zeros(h).index_reduce(1, torch.arange(24), h, "amax", include_self=False), ["index_reduce"],
    ),
    "segment_reduce": (
        lambda h: torch.segment_reduce(h.T.contiguous(), "sum", lengths=torch.tensor([4, 20])).T, ["segment_reduce"],
    ),
    "h / h.max()": (lambda h: h / (5 + h.max()), ["max"]),
    "h - h.min()": (lambda h: h - h.min(), ["min"]),
    "h / h.abs().amax()": (lambda h: h / (5 + h.abs().amax()), ["amax"]),
    "aminmax": (lambda h: h - h.aminmax(dim=1, keepdim=True)[0], ["aminmax"]),
    "max(axis=)": (lambda h: h.max(axis=1)[0], ["max"]),
    "torch.max(input=, dim=)": (lambda h: torch.max(input=h, dim=1).values, ["max"]),
    "var(axis=)": (lambda h: h.var(axis=1), ["var"]),
    "std(input=, dim=)": (lambda h: torch.std(input=h, dim=1), ["std"]),
    "amax(keepdims=)": (lambda h: h - torch.amax(h, 1, keepdims=True), ["amax"]),
    "softmax(input=)": (lambda h: torch.softmax(input=h, dim=1), ["softmax"]),
    "var_mean": (lambda h: torch.var_mean(h, 1), ["var_mean"]),
    "std_mean": (lambda h: torch.std_mean(h, dim=1, keepdim=True), ["std_mean"]),
    "relu of a number": (lambda h: h * h.sum().relu(), ["relu"]),
    "clamp of a number": (lambda h: h * h.sum().clamp(min=0), ["clamp"]),
    "maximum of numbers": (lambda h: h * torch.maximum(h.sum(), h.mean()), ["maximum"]),
    "sigmoid of a number": (lambda h: h * h[0, 0].sigmoid(), ["sigmoid"]),
    "LSTM": (_recurrent(nn.LSTM), ["lstm"]),
    "LSTM proj_size": (_recurrent(nn.LSTM, proj_size=2), ["lstm"]),
    "LSTM both ways, two layers": (_recurrent(nn.LSTM, bidirectional=True, num_layers=2), ["lstm"]),
    "GRU": (_recurrent(nn.GRU), ["gru"]),
    "RNN": (_recurrent(nn.RNN, nonlinearity="relu"), ["rnn"]),
    "LSTMCell": (_cell(nn.LSTMCell), ["lstm"]),
    "GRUCell": (_cell(nn.GRUCell), ["gru"]),
    "RNNCell": (_cell(nn.RNNCell), ["rnn"]),
    "pooling with indices": (
        lambda h: F.max_unpool1d(*F.max_pool1d(h[:, None].relu(), 2, return_indices=True), 2), ["pool"],
    ),
    "adaptive pooling with indices": (
        lambda h: F.adaptive_max_pool1d(h[:, None], 3, return_indices=True)[0], ["pool"],
    ),
    "fractional pooling": (
        lambda h: F.fractional_max_pool2d(
            h.view(-1, 1, 4, 6), 2, output_size=2, _random_samples=torch.full((len(h), 1, 2), 0.5).double()
        ), ["pool"],
    ),
    "lp_pool": (lambda h: F.lp_pool1d(h[:, None].abs() + 1, 2, 2), ["pool"]),
    "as_tensor": (lambda h: torch.as_tensor(h) * 2, ["as_tensor"]),
    "asarray": (lambda h: torch.asarray(h, requires_grad=True) * 2, ["asarray"]),
    "pad_sequence": (
        lambda h: nn.utils.rnn.pad_sequence([h[0, :3], h[1], h[2, :5]], batch_first=True), ["pad_sequence"],
    ),
    "packed sequence": (_packed, ["pack"]),
    "lerp": (lambda h: torch.lerp(h, 2 * h, 0.3), ["lerp"]),
    "lerp by an activation": (lambda h: torch.lerp(h, 2 * h, h.sigmoid()), ["lerp"]),
    "fft": (lambda h: torch.fft.fft(h), ["fft"]),
    "fft2's real part": (lambda h: torch.fft.fft2(h.view(-1, 4, 6), dim=(1, 2)).real, ["fft", "real"]),
    "rfft and back": (lambda h: torch.fft.irfft(torch.fft.rfft(h) * torch.arange(13), 24), ["fft"]),
    "a spectrum": (lambda h: torch.fft.rfft(h).abs(), ["fft", "abs"]),
    "relu between ffts": (lambda h: torch.fft.irfft(torch.fft.rfft(h.relu()), 24).relu(), ["fft"]),
    "torch.complex": (lambda h: torch.complex(h[:, :12], h[:, 12:]) * 1j, ["complex"]),
    "view_as_complex": (lambda h: torch.view_as_complex(h.view(-1, 12, 2)).conj().imag, ["complex", "imag"]),
    "polar": (lambda h: torch.polar(h[:, :12], h[:, 12:]).real, ["polar"]),
    "stft": (
        lambda h: torch.stft(h, 8, window=torch.ones(8).double(), return_complex=True).real, ["stft"],
    ),
    "sort": (lambda h: h.sort(1).values, ["sort"]),
    "topk": (lambda h: h.topk(3, 1).values, ["topk"]),
    "cummax": (lambda h: h.cummax(1).values, ["cummax"]),
    "kthvalue": (lambda h: h.kthvalue(3, 1).values, ["kthvalue"]),
    "median": (lambda h: h.median(1).values, ["median"]),
    "quantile": (lambda h: h.quantile(0.3, 1), ["quantile"]),
    "checkpoint": (_checkpoint(False), ["checkpoint"]),
    "reentrant checkpoint": (_checkpoint(True), ["checkpoint"]),
    "autograd.grad inside": (_inner_gradient, ["grad"]),
    "a full backward hook": (_hooked, ["hook"]),
    "a subclass": (lambda h: h * torch.ones(24).double().as_subclass(Labelled), ["subclass", "Labelled"]),
    "made a subclass": (lambda h: h.as_subclass(Labelled) * 2, ["subclass", "Labelled"]),
    "inference_mode": (_inference, ["inference"]),
    "a constant": (lambda h: torch.ones(len(h), 4).double(), ["depend"]),
    "a detached": (lambda h: h.detach() * 2, ["depend", "detach"]),
    "a hook on a tensor": (lambda h: _with_hook(h), ["hook"]),
    "nested": (lambda h: torch.nested.to_padded_tensor(torch.nested.nested_tensor(list(h.unbind())), 0.0), ["nested"]),
    "sparse": (lambda h: torch.sparse.mm(torch.eye(3).double().to_sparse(), h), ["sparse"]),
    "to_sparse": (lambda h: h.to_sparse().to_dense(), ["sparse"]),
    "float32 inside": (lambda h: h.float().relu().double(), ["float"]),
    "bfloat16 inside": (lambda h: h.bfloat16().double(), ["bfloat16"]),
    "autocast inside": (lambda h: _autocast(h), ["autocast"]),
    "vmap": (lambda h: torch.func.vmap(lambda v: v.relu() * 2)(h), ["vmap"]),
    "func.grad": (lambda h: torch.func.grad(lambda v: (v.sigmoid() * v).sum())(h), ["grad"]),
    "jvp": (lambda h: torch.func.jvp(torch.tanh, (h,), (torch.ones_like(h),))[1], ["jvp"]),
    "affine_grid": (
        lambda h: F.affine_grid(h[:, :6].view(-1, 2, 3), (3, 1, 2, 2), align_corners=False), ["affine_grid"],
    ),
    "embedding_bag": (
        lambda h: F.embedding_bag(torch.arange(24).view(1, -1).expand(len(h), -1), torch.eye(24).double(),
                                  per_sample_weights=h, mode="sum"), ["embedding_bag"],
    ),
    "unique": (lambda h: h * torch.unique(h.detach())[:24], ["unique"]),
    "nonzero": (lambda h: h[:, (h[0] != 0).nonzero()[:, 0]], ["nonzero"]),
    "pinverse": (lambda h: torch.linalg.pinv(h.view(-1, 4, 6)), ["pinv"]),
    "svd": (lambda h: torch.linalg.svdvals(h.view(-1, 4, 6)), ["svd"]),
    "eigh": (lambda h: torch.linalg.eigvalsh(h.view(-1, 4, 6) @ h.view(-1, 6, 4)), ["eigvalsh"]),
    "cholesky": (
        lambda h: torch.linalg.cholesky(h.view(-1, 4, 6) @ h.view(-1, 6, 4) + 9 * torch.eye(4)), ["cholesky"],
    ),
    "solve": (lambda h: torch.linalg.solve(9 * torch.eye(4) + h[:, :16].view(-1, 4, 4), h[:, 16:20]), ["solve"]),
    "matrix_exp": (lambda h: torch.linalg.matrix_exp(h[:, :16].view(-1, 4, 4) / 9), ["matrix_exp"]),
    "trapezoid": (lambda h: torch.trapezoid(h, dim=1), ["trap"]),
    "histogram": (lambda h: h + torch.histc(h.detach(), 24), ["histc"]),
}  # fmt: skip


def _with_hook(h):
    h = h * 1.0
    if h.requires_grad:
        h.register_hook(lambda g: 2 * g)
    return h.relu()


def _autocast(h):
    with torch.autocast("cpu", torch.bfloat16):
        return F.linear(h.float(), torch.ones(4, 24)).double()


ROUGH = ("float32 inside", "bfloat16 inside", "autocast inside")  # complete to these types' rounding, not to 1e-6
MIXED = ("h / h.max()", "h - h.min()", "h / h.abs().amax()", "relu of a number", "clamp of a number",
         "maximum of numbers", "sigmoid of a number", "pad_sequence", "packed sequence", "unique", "nonzero",
         "histogram")  # fmt: skip


@pytest.mark.filterwarnings("ignore")  # of prototypes and deprecations, torch's own
@rules
@each({k: v for k, v in UNCLEAR.items() if k not in ROUGH})
def test_deeplift_is_complete_or_says_why_not(case, rule):
    operation, names = UNCLEAR[case]
    x, r = inputs()
    complete_or_refuses(Network(operation, (24,)), x, r, rule, names, independent=case not in MIXED)
    complete_or_refuses(Network(operation, (24,)), x, r.repeat(3, 1), rule, names, independent=case not in MIXED)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", ["gradient", "guided", "bcos", "integrated_gradients", *RELEVANCE])
@each(UNCLEAR)
def test_every_method_has_a_map_or_says_why_not(case, name):
    operation = UNCLEAR[case][0]
    if case == "reentrant checkpoint" and name in ("gradient", "integrated_gradients"):
        return  # torch says itself that it has no gradient of one
    attempt(lambda: oracles.map_of(Network(operation, (24,)), inputs()[0], METHODS[name]))


@pytest.mark.filterwarnings("ignore")
@each({k: v for k, v in UNCLEAR.items() if k not in ROUGH})
def test_gradients_through_anything_are_autograds(case):
    operation = UNCLEAR[case][0]
    if case in ("inference_mode", "reentrant checkpoint"):
        return  # autograd cannot run it either
    autograd_or_refuses(Network(operation, (24,)), inputs()[0])


@all_methods
@pytest.mark.parametrize("what", ["x", "model", "call"])
def test_explain_works_with_what_was_made_in_inference_mode_or_says_so(what, name):
    x = inputs()[0]
    wanted = oracles.map_of(Network(torch.relu), x, METHODS[name])
    with torch.inference_mode():
        made_x, made_model = x.clone(), Network(torch.relu)

    def make():
        if what == "call":
            with torch.inference_mode():
                return oracles.map_of(Network(torch.relu), x, METHODS[name])
        return oracles.map_of(made_model if what == "model" else Network(torch.relu), made_x if what == "x" else x,
                              METHODS[name])  # fmt: skip

    found = attempt(make, ["inference"])
    if not isinstance(found, str):
        close(found, wanted, what)


# ------------------------------------------------------------------------ numbers


@pytest.mark.parametrize("offset", [0, 10, 100, 1e3, 1e4])
@pytest.mark.parametrize("end", ["softmax", "log_softmax", "attention", "logsumexp", "cross_entropy"])
def test_deeplift_through_softmax_of_large_logits_is_complete_in_float32(offset, end):
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(20, 32), nn.ReLU(), nn.Linear(32, 10))
    with torch.no_grad():
        net[2].weight += offset / 10
    ends = {
        "softmax": lambda h: h.softmax(1),
        "log_softmax": lambda h: h.log_softmax(1),
        "attention": lambda h: h.softmax(1) @ torch.eye(10),
        "logsumexp": lambda h: h - h.logsumexp(1, keepdim=True),
        "cross_entropy": lambda h: (
            -F.cross_entropy(h, torch.zeros(len(h), dtype=torch.long), reduction="none")[:, None]
        ),
    }

    class Net(nn.Module):
        def forward(self, x):
            return ends[end](net(x))

    found = attempt(lambda: explain(Net(), torch.randn(8, 20), 0, DeepLift()))
    if not isinstance(found, str):
        gap = (found.heatmap.sum(1) - found.delta).abs().max()
        assert gap <= 4e-6 * (1 + offset / 10) * max(1.0, float(found.delta.abs().max())), float(gap)


def test_integrated_gradients_with_create_graph_return_logits_with_a_graph():
    model, (x, r) = Network(torch.relu), inputs()
    result = explain(model, x, 0, IntegratedGradients(r, 3), create_graph=True)
    assert result.logits.requires_grad and result.heatmap.requires_grad
    by_logits = torch.autograd.grad(result.logits.sum(), model.a, retain_graph=True)[0]
    close(by_logits, torch.autograd.grad(model(x).sum(), model.a)[0], "the logits' gradient")


@pytest.mark.parametrize(
    "method",
    [Gradient(), InputXGradient(), IntegratedGradients(steps=9), DeepLift(torch.zeros(5, 1, 5).double()), LRP(),
     ZPlus(), DeepLift(torch.zeros(5, 1, 5).double(), "reveal_cancel")],
    ids=["gradient", "input_x_gradient", "ig", "five references", "lrp", "zplus", "five references, reveal_cancel"],
)  # fmt: skip
def test_a_random_target_is_drawn_once_a_call(method):
    model, x = nn.Linear(5, 4, bias=False).double(), inputs(8)[0]
    maps = torch.stack([explain(model, x, k, method).heatmap for k in range(4)])
    for seed in range(4):
        generator = torch.Generator().manual_seed(seed)
        found = explain(model, x, stochastic_target(generator), method).heatmap
        gaps = (maps - found).abs().amax(2).amin(0)
        assert float(gaps.max()) < 1e-9, "a mixture of the classes drawn in several passes"


# ------------------------------------------------------------------------ arguments that fit by chance


class Plain(nn.Module):
    def __init__(self):
        super().__init__()
        self.c, self.f = nn.Conv2d(1, 2, 3), nn.Linear(2, 3)

    def forward(self, x):
        return self.f(self.c(x.reshape(len(x), 1, 8, 8)).relu().mean((2, 3)))


class Tokens(nn.Module):
    def __init__(self, channels=4, length=4):
        super().__init__()
        self.length, self.n, self.f = length, nn.LayerNorm(channels), nn.Linear(channels, 3)

    def forward(self, x):
        tokens = x.reshape(len(x), self.length, -1)[..., : self.n.normalized_shape[0]]
        return self.f(self.n(tokens).mean(1))


@pytest.mark.parametrize("shape", [(2, 64), (2, 8, 8), (1, 64)], ids=str)
def test_grad_cam_of_an_input_that_has_not_the_layers_dimensions_says_so(shape):
    with pytest.raises(ValueError, match=r"shape|spatial|dimension"):
        explain(Plain(), torch.rand(shape), 0, GradCAM("c"))


@pytest.mark.parametrize("shape", [(1, 1, 8, 8), (4, 1, 8, 8), (3, 1, 8, 8)], ids=str)
def test_grad_cam_of_tokens_says_so(shape):
    with pytest.raises(ValueError, match=r"shape|spatial|dimension|reshape|\(N, C"):
        explain(Tokens(), torch.rand(shape), 0, GradCAM("n"))


@pytest.mark.parametrize("measure", [epg, energy_loss], ids=["epg", "energy_loss"])
@pytest.mark.parametrize("shape", [(8, 8), (3, 64), (2, 2, 1, 1, 8, 8), (5, 8, 8)], ids=str)
def test_energies_of_maps_that_do_not_fit_their_masks_say_so(measure, shape):
    with pytest.raises(ValueError, match="heatmap"):
        measure(torch.rand(shape), torch.ones(3, 8, 8))


@pytest.mark.parametrize("n", [2, 3])
def test_references_that_fit_a_chunk_and_not_x_are_refused(n):
    model, x = Network(torch.relu), inputs(6)[0]
    for reference in (torch.rand(n, 5), torch.rand(4, n, 5)):
        with pytest.raises(ValueError, match="reference"):
            explain(model, x, 0, DeepLift(reference.double()), chunk_size=n)


@pytest.mark.parametrize("method", [InputXGradient(), DeepLift(), LRP()], ids=lambda m: type(m).__name__)
@pytest.mark.parametrize("n", [2, 3, 8])
def test_targets_that_fit_a_chunk_and_not_x_are_refused(n, method):
    model, x = Network(torch.relu), inputs(6)[0]
    for target in (torch.zeros(n, dtype=torch.long), torch.zeros(n, 2, dtype=torch.long)):
        with pytest.raises(ValueError, match="target"):
            explain(model, x, target, method, chunk_size=2)


@pytest.mark.parametrize("low, high", [(-3.0, 3.0), (0.0, 255.0), (-1e-2, 1.0), (0.0, 1.1)])
@pytest.mark.parametrize("method", [LRP(1e-2, ZB(0, 1)), ZPlus(1e-2, ZB(0, 1))], ids=["lrp", "zplus"])
def test_inputs_outside_the_box_of_zb_are_noticed(method, low, high):
    x = torch.rand(2, 5, dtype=torch.float64) * (high - low) + low
    x[0, 0], x[0, 1] = low, high
    with pytest.raises((ValueError, UserWarning), match=r"low|high|ZB|range|outside"):  # warnings are errors here
        explain(Network(torch.relu), x, 0, method)


@pytest.mark.parametrize("number", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize(
    "method", [DeepLift, IntegratedGradients, InputXGradient, GuidedBackprop, lambda r: DeepLift(r, "reveal_cancel")],
    ids=["DeepLift", "IntegratedGradients", "InputXGradient", "GuidedBackprop", "RevealCancel"],
)  # fmt: skip
def test_a_reference_that_is_no_number_is_refused(method, number):
    with pytest.raises(ValueError, match="reference"):
        explain(Network(torch.relu), inputs()[0], 0, method(number))


# ------------------------------------------------------------------------ the model comes back as it was


class Counts(nn.Module):
    def __init__(self):
        super().__init__()
        self.l = nn.Linear(5, 3).double()
        self.register_buffer("calls", torch.zeros((), dtype=torch.long))
        self.register_buffer("average", torch.zeros(5, dtype=torch.float64))
        self.register_buffer("last", None)

    def forward(self, x):
        self.calls += 1
        self.average.mul_(0.9).add_(0.1 * x.detach().mean(0))
        self.last = x.detach().mean(0)
        return self.l(x).relu()


@all_methods
@pytest.mark.parametrize("training", [False, True], ids=["eval", "training"])
def test_buffers_come_back_as_they_were_in_every_mode(name, training):
    model, x = Counts().train(training), inputs()[0]
    attempt(lambda: oracles.map_of(model, x, METHODS[name]))
    assert model.calls == 0 and not model.average.any() and model.last is None
    assert not any(b.requires_grad or vars(b) for b in model.buffers())
    copy.deepcopy(model)


def test_batch_norms_statistics_come_back_from_several_threads():
    model = nn.Sequential(nn.Linear(5, 6), nn.BatchNorm1d(6), nn.ReLU(), nn.Linear(6, 2)).double().train()
    before, x = copy.deepcopy(model.state_dict()), inputs(6)[0]
    run = lambda: [explain(model, x, 0, InputXGradient()) for _ in range(20)]  # noqa: E731
    threads = [threading.Thread(target=run) for _ in range(6)]
    [t.start() for t in threads]
    [t.join() for t in threads]
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name]), name


@pytest.mark.parametrize("method", [DeepLift(), DeepLift(rule="reveal_cancel"), LRP(), GuidedBackprop()], ids=str)
def test_nothing_grows_with_the_number_of_calls(method):
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(18, 2))
    x = torch.rand(1, 1, 8, 8)

    def held():
        gc.collect()
        caches = [o for o in gc.get_objects() if type(o).__name__ == "_lru_cache_wrapper"]
        return sum(
            c.cache_info().currsize for c in caches if (getattr(c, "__module__", "") or "").startswith("attrain")
        )

    [explain(model, x, 0, method) for _ in range(3)]
    before = held()
    [explain(model, x, 0, method) for _ in range(20)]
    assert held() == before


# ------------------------------------------------------------------------ one reference for all samples, one row


def _late(h):
    h = h * 1.0
    view = h.T
    h.relu_()
    return (view * 2).T


def _in_place(view, write):
    def operation(h):
        h = h * 1.0
        write(view(h))
        return h

    return operation


def _set_row(t):
    t[0] = t[1].relu()


ONE_ROW = {  # what keeps the number of samples, and yet is not the same sample by sample
    "einsum over the samples": lambda h: torch.einsum("ni,mi->n", h, h),
    "einsum of another's samples": lambda h: torch.einsum("ni,mj->m", h, h.relu()),
    "einsum by a matrix": lambda h: torch.einsum("mn,nf->mf", torch.eye(len(h)).double().roll(1, 0), h.relu()),
    "einsum with dots": lambda h: torch.einsum("...i,...i->...", h.relu(), h),
    "einsum of no dimension": lambda h: torch.einsum("...ni,mi->...n", h, h),
    "pad shifts samples": lambda h: F.pad(h.relu(), (0, 0, 1, -1)),
    "constant_pad_nd shifts samples": lambda h: torch.constant_pad_nd(h, (0, 0, -1, 1), 0.5).relu(),
    "flipud": lambda h: h.flipud().relu() + h,
    "rot90 twice": lambda h: torch.rot90(h, 2).relu() + h,
    "index_put of one sample": lambda h: torch.index_put(
        h, (torch.tensor([0]), torch.tensor([2])), torch.tensor([5.0]).double()
    ).relu(),
    "slice_scatter": lambda h: torch.slice_scatter(h, ones(h[:1].detach()), start=0, end=1).relu(),
    "as_strided of a view": lambda h: (lambda t: t.as_strided(t.shape, t.stride()))(h.T).T.relu(),
    "as_strided windows": lambda h: h.contiguous().as_strided((len(h), 4, 3), (6, 1, 1)).tanh(),
    "a transposed in place": _in_place(lambda h: h.T, lambda t: t.relu_()),
    "a row of the transposed in place": _in_place(lambda h: h.T[:2], lambda t: t.relu_()),
    "rows of the transposed added": _in_place(lambda h: h.T, lambda t: t[1].add_(t[0])),
    "a row of the transposed set": _in_place(lambda h: h.T, _set_row),
    "in place below a transposed": _late,
}


@rules
@each(ONE_ROW)
def test_deeplift_with_a_reference_shared_by_the_samples_is_that_with_one_a_sample(case, rule):
    x, r = inputs()
    model = Network(ONE_ROW[case])
    complete_or_refuses(model, x, r, rule, independent=False)
    complete_or_refuses(model, x, r.repeat(3, 1), rule, independent=False)
    references = torch.stack([r, 0.5 * r + 0.3, -r, 0 * r])
    found = attempt(lambda: explain(model, x, 0, DeepLift(references, rule)).heatmap)
    if not isinstance(found, str):
        alone = [attempt(lambda q=q: explain(model, x, 0, DeepLift(q.expand_as(x), rule)).heatmap) for q in references]
        close(found, sum(alone) / 4, "the mean over references")


def test_a_model_that_counts_is_run_anew_as_it_was():
    class Counting(nn.Module):
        def __init__(self):
            super().__init__()
            self.register_buffer("calls", torch.zeros(()))

        def forward(self, x):
            self.calls += 1
            h = x * self.calls.to(x.dtype)
            h.T.relu_()
            return h[:, :2]

    x, r = inputs()
    found = explain(Counting(), x, 0, DeepLift(r))
    close(found.heatmap[:, 0], x[:, 0].relu() - r[:, 0].relu(), "the map of the first call")
    close(found.heatmap.sum(1), found.delta, "its sum")


def test_random_slopes_are_refused_by_deeplift():
    x, r = inputs()
    model = Network(lambda h: F.rrelu(h, training=True))
    for rule in DEEPLIFT:
        refused = attempt(lambda rule=rule: explain(model, x, 0, DeepLift(r, rule)))
        assert isinstance(refused, str) and "rrelu" in refused, refused


@pytest.mark.parametrize("swapped", [False, True])
def test_the_map_of_a_maximum_does_not_depend_on_the_other_samples(swapped):
    def running(h):
        most = torch.full((len(h),), -10.0, dtype=h.dtype)
        for k in range(h.shape[1]):
            most = torch.maximum(h[:, k], most) if swapped else torch.maximum(most, h[:, k])
        return most[:, None]

    x, r = inputs()
    model, method = Network(running), DeepLift(r, "reveal_cancel")
    alone = torch.cat([explain(model, row[None], 0, method).heatmap for row in x])
    close(explain(model, x, 0, method).heatmap, alone, "RevealCancel")


def _layer_forms():
    torch.manual_seed(8)
    w, b = torch.randn(4, 6).double(), torch.randn(4).double()
    return {
        "addmm": lambda h: torch.addmm(b, h, w.T),
        "addmm, beta and alpha": lambda h: torch.addmm(b / 2, h, w.T / 3, beta=2, alpha=3),
        "baddbmm": lambda h: torch.baddbmm(b, h[:, None], w.T.expand(len(h), 6, 4))[:, 0],
        "addmv": lambda h: torch.stack([torch.addmv(b, w, row) for row in h]),
        "inner": lambda h: torch.inner(h, w) + b,
        "tensordot": lambda h: torch.tensordot(h, w, ([1], [1])) + b,
        "einsum": lambda h: torch.einsum("ni,oi->no", h, w) + b,
        "matmul": lambda h: h @ w.T + b,
    }


@pytest.mark.parametrize("form", [n for n in _layer_forms() if n != "matmul"])
@rules
def test_a_matrix_product_and_its_bias_have_one_map_however_written(form, rule):
    x, r = inputs()
    forms, method = _layer_forms(), DeepLift(r, rule)
    models = [Network(lambda h, f=forms[name]: f(h.tanh()).relu()) for name in (form, "matmul")]
    found, wanted = (attempt(lambda m=m: explain(m, x, 0, method).heatmap) for m in models)
    moved = rule == "genomics" and form in ("addmm, beta and alpha", "baddbmm", "addmv")  # between layer and ReLU
    if isinstance(wanted, str) or moved:
        assert isinstance(found, str)
    else:
        close(found, wanted, form)


# ------------------------------------------------------------------------ z^B where the first layer's output forks


def _normed(h, w):
    return F.batch_norm(h, w[0] * 0.1, w[1].abs() + 0.5, w[2], w[0])


FORKS = {  # name: (what comes behind the layer, by a ReLU and a weight (6, 6); where the relevance is taken)
    "beside the ReLU": (lambda h, relu, w: relu(h) + h, "layer"),
    "before the ReLU": (lambda h, relu, w: F.linear(h, w) + relu(h), "layer"),
    "a part of it": (lambda h, relu, w: F.linear(relu(h), w) + h[:, :1], "layer"),
    "a copy of it": (lambda h, relu, w: relu(h) + F.linear(h.clone(), w), "layer"),
    "both signs": (lambda h, relu, w: relu(h) + relu(-h), "layer"),
    "two ReLUs": (lambda h, relu, w: relu(h) + F.linear(relu(h), w), "layer"),
    "a pre-activation block": (lambda h, relu, w: h + F.linear(relu(_normed(h, w)), w), "layer"),
    "no fork": (lambda h, relu, w: F.linear(relu(h), w), "relu"),
    "behind the ReLU": (lambda h, relu, w: (lambda y: y + F.linear(relu(y), w))(relu(h)), "relu"),
}


@pytest.mark.parametrize("with_graph", [False, True], ids=["", "create_graph"])
@each(FORKS)
def test_zb_takes_all_relevance_of_the_first_layer(case, with_graph):
    behind, where = FORKS[case]
    torch.manual_seed(3)
    w, v = torch.randn(6, 6).double(), torch.randn(3, 6).double()
    x, _ = inputs()
    model = Network(lambda h: h)
    whole = lambda x: F.linear(behind(model.hidden(x), torch.relu, w), v)  # noqa: E731
    found = explain(whole, x, 0, LRP(oracles.EPSILON, ZB(-9, 9)), create_graph=with_graph)
    h = model.hidden(x).detach()
    start = (h if where == "layer" else h.relu()).requires_grad_()
    passed = [where == "layer"]

    def relu(t):  # the first one lies before where the relevance is taken, or behind it
        return oracles.epsilon_relu(t) if passed[0] or passed.__setitem__(0, True) else t

    (g,) = torch.autograd.grad(F.linear(behind(start, relu, w), v)[:, 0].sum(), start)
    weight, bias = model.a.detach(), model.b.detach()
    up, down = (weight.clamp(min=0), bias.clamp(min=0)), (weight.clamp(max=0), bias.clamp(max=0))
    z = h.detach() + 9 * F.linear(torch.ones_like(x), *up) - 9 * F.linear(torch.ones_like(x), *down)
    s = g * start.detach() / (z + 1e-2 * z.sign())
    close(found.heatmap.detach(), x * (s @ weight) + 9 * (s @ up[0]) - 9 * (s @ down[0]), case)


def test_zb_without_a_first_layer_says_so():
    refused = attempt(lambda: explain(nn.Identity(), inputs()[0], 0, LRP(1e-2, ZB(-9, 9))))
    assert "first layer" in refused


# ------------------------------------------------------------------------ arguments that the model writes to

SEVERAL_PASSES = [
    IntegratedGradients(steps=2),
    SmoothGrad(Gradient(), samples=2),
    Occlusion(1),
    Occlusion(1, batch_size=1),
    DeepLift(torch.zeros(2, 1, 5), "reveal_cancel"),
]


@pytest.mark.parametrize("method", SEVERAL_PASSES, ids=str)
def test_an_argument_that_a_model_writes_to_is_refused_where_the_next_pass_would_find_another(method):
    layer, x = nn.Linear(5, 3).double(), inputs()[0]
    found = attempt(lambda: explain(lambda x, s: layer(x * s.add_(1.0)), x, 0, method, args=(ones(x[0]),)))
    assert isinstance(found, str) and "args" in found


def test_an_argument_that_a_model_writes_to_is_refused_where_the_next_chunk_would_find_another():
    layer, x = nn.Linear(5, 3).double(), inputs()[0]
    model = lambda x, s: layer(x * s.add_(1.0))  # noqa: E731
    found = attempt(lambda: explain(model, x, 0, Gradient(), kwargs={"s": ones(x[0])}, chunk_size=1))
    assert isinstance(found, str) and "kwargs" in found
    close(
        explain(model, x, 0, Gradient(), kwargs={"s": ones(x[0])}).heatmap,
        2 * layer.weight[0].detach().expand_as(x),
        "once",
    )


# ------------------------------------------------------------------------ what a model holds, and what it does not


def test_a_tensor_that_takes_the_place_of_another_in_memory_is_no_constant():
    class Forgetful(nn.Module):
        def forward(self, x):
            self.kept = zeros(x)
            h = F.linear(x, torch.eye(5).double()[:4])
            self.kept = None  # what comes next may lie where it lay
            return h.gather(1, torch.tensor([3, 1, 0, 0]).expand(h.shape)).relu()

    x, r = inputs()
    for _ in range(20):
        assert complete_or_refuses(Forgetful(), x, r) == "right"


def test_buffers_that_modules_share_stay_shared_in_training():
    layer = nn.Linear(5, 3).double()
    layer.register_buffer("scale", ones(torch.zeros(5).double()))
    layer.inner = nn.Module()
    layer.inner.register_buffer("scale", layer.scale)
    scale = layer.scale
    layer.forward = lambda x: F.linear(x * layer.scale.to(x.dtype), layer.weight) + layer.inner.scale.contiguous()[:3]
    explain(layer, inputs()[0], 0, LRP(), create_graph=True)
    assert layer.scale is layer.inner.scale is scale and not vars(scale)


@pytest.mark.filterwarnings("ignore")  # of a layout in beta
def test_sparse_constants_and_transforms_of_frozen_ensembles():
    x, r = inputs()
    matrix = torch.randn(3, 5, generator=torch.Generator().manual_seed(2), dtype=torch.float64).to_sparse_csr()
    model = lambda x: (matrix @ x.T).T.relu()  # noqa: E731
    autograd_or_refuses(model, x)
    complete_or_refuses(model, x, r, independent=False)
    heads = [nn.Linear(5, 3).double() for _ in range(2)]
    parameters, buffers = torch.func.stack_module_state(heads)
    one = lambda p, b, x: torch.func.functional_call(heads[0], (p, b), (x,))  # noqa: E731
    ensemble = lambda x: torch.func.vmap(one, (0, 0, None))(parameters, buffers, x).mean(0)  # noqa: E731
    autograd_or_refuses(ensemble, x)


def test_attention_without_a_batch_can_be_trained_on():
    model = Network(lambda h: F.scaled_dot_product_attention(h, h, h))
    maps = [explain(model, inputs()[0], 0, AttnLRP(), create_graph=c).heatmap.detach() for c in (False, True)]
    close(maps[1], maps[0], "with a graph")


@pytest.mark.filterwarnings("ignore")
def test_scripted_models_are_refused_in_words_by_methods_of_several_passes():
    model = torch.jit.script(nn.Sequential(nn.Linear(5, 3)).double())
    for method in (DeepLift(torch.zeros(2, 1, 5)), LRP()):
        assert "script" in attempt(lambda m=method: explain(model, inputs()[0], 0, m))
