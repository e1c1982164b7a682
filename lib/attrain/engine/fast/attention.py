"""Attention whose explained derivative is cheap to differentiate: 18 matrix products and few passes between them."""

import torch
from torch import Tensor
from torch.autograd import Function

from attrain.engine.fast.derivatives import plain_softmax_derivative, softmax_second_derivative
from attrain.engine.mode import Backward


def attention(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, scale: float, rules: Backward) -> Tensor:
    """softmax(scale · q kᵀ + mask) v; while explaining, each of the two products gives half to each of its factors.

    Args:
        query, key, value: (..., T, d), (..., S, d), (..., S, e), alike in the dimensions before; all activations.
        mask: none, truth values that say what is attended to, or numbers that are added; (T, S) or with what is before.
        scale: a number.
        rules: whether the pass explains.
    """
    lead = query.shape[:-2]
    flat = [t.reshape(-1, *t.shape[-2:]) for t in (query, key, value)]
    out, _ = _Attention.apply(*flat, mask, lead, scale, rules)
    return out.unflatten(0, lead) if len(lead) != 1 else out


class _Attention(Function):
    @staticmethod
    def forward(ctx, q, k, v, mask, lead, scale, rules):
        scores = torch.bmm(q * scale, k.mT)
        if mask is not None:
            full = scores.view(*lead, *scores.shape[-2:])
            full = full.masked_fill(~mask, -torch.inf) if mask.dtype == torch.bool else full + mask
            scores = full.view(scores.shape)
        weights = torch.softmax(scores, -1)
        ctx.save_for_backward(q, k, v, weights)
        ctx.set_materialize_grads(False)
        ctx.scale, ctx.rules = scale, rules
        return torch.bmm(weights, v), weights

    @staticmethod
    def backward(ctx, g, of_weights):
        q, k, v, weights = ctx.saved_tensors
        if g is not None and ctx.rules.explaining:
            return *_Explained.apply(g, q, k, v, weights, ctx.scale), None, None, None, None
        of_v = None if g is None else torch.bmm(weights.mT, g)
        if g is not None:
            of_weights = torch.bmm(g, v.mT) if of_weights is None else torch.baddbmm(of_weights, g, v.mT)
        of_scores = torch._softmax_backward_data(of_weights, weights, -1, weights.dtype)
        of_q, of_k = torch.bmm(of_scores, k) * ctx.scale, torch.bmm(of_scores.mT, q) * ctx.scale
        return of_q, of_k, of_v, None, None, None, None


def plain_explained(g: Tensor, q: Tensor, k: Tensor, v: Tensor, weights: Tensor, scale: float) -> tuple[Tensor, ...]:
    """What an output's explained gradient is at query, key and value, in torch's operations."""
    of_scores = plain_softmax_derivative(g @ v.mT, weights, -1) * (scale / 4)
    return of_scores @ k, of_scores.mT @ q, weights.mT @ g / 2


class _Explained(Function):
    @staticmethod
    def forward(ctx, g, q, k, v, weights, scale):
        of_weights = torch.bmm(g, v.mT)
        of_scores = torch._softmax_backward_data(of_weights, weights, -1, weights.dtype)
        ctx.save_for_backward(g, q, k, v, weights, of_weights, of_scores)
        ctx.scale = scale
        return (
            torch.bmm(of_scores, k) * (scale / 4),
            torch.bmm(of_scores.mT, q) * (scale / 4),
            torch.bmm(weights.mT, g) / 2,
        )

    @staticmethod
    def backward(ctx, of_q, of_k, of_v):
        g, q, k, v, weights, of_weights, of_scores = ctx.saved_tensors
        if torch.is_grad_enabled():
            values = [t if t.requires_grad else t.detach().requires_grad_() for t in (g, q, k, v, weights)]
            out = plain_explained(*values, ctx.scale)
            return *torch.autograd.grad(out, values, (of_q, of_k, of_v), create_graph=True), None
        of_q, of_k, of_v = of_q * (ctx.scale / 4), of_k * (ctx.scale / 4), of_v / 2
        h = torch.bmm(of_q, k.mT).baddbmm_(q, of_k.mT)
        of_g, more = softmax_second_derivative(of_weights, weights, -1, h)
        return (
            torch.bmm(of_g, v).baddbmm_(weights, of_v),
            torch.bmm(of_scores, of_k),
            torch.bmm(of_scores.mT, of_q),
            torch.bmm(of_g.mT, g),
            more.baddbmm_(g, of_v.mT),
            None,
        )
