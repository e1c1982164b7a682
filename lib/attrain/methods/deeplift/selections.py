"""DeepLIFT where values are chosen, written and read: whole numbers and truth values must be those of the reference."""

import torch
from torch import Tensor

from attrain.engine.call import ADVICE, Call, UnsupportedOperation
from attrain.methods.deeplift.differences import OneByOne
from attrain.tensors import mapped, tensors


def continuous(value: Tensor) -> bool:
    """Whether a tensor holds numbers, real or complex, rather than choices."""
    return value.is_floating_point() or value.is_complex()


def choice(mode, call: Call, out):
    """Whole numbers and truth values: constants as long as the reference has the same."""
    found = tensors([out])
    whole = all(mode.of(t).whole for t in call.active)  # made of token ids alone: where activations begin
    if not whole and (any(continuous(t) for t in found) or call.inplace):
        if mode.several:  # one of them may choose as the input does
            raise OneByOne
        if any(mode.of(t).whole for t in call.active):
            raise UnsupportedOperation(
                f"{call} selects by token ids, and on the reference otherwise than on x: DeepLIFT needs reference ids "
                "with which the same is selected, as padding where x has padding"
            )
        reads = any(not continuous(t) for t in call.active)
        raise UnsupportedOperation(
            f"{call} selects by values of activations; {ADVICE}"
            if reads
            else f"DeepLIFT has no rule for {call}; {ADVICE}"
        )
    if mode.selecting:
        return out
    reference = mode.on_reference(call, out)
    if not all(map(mode.alike, found, tensors([reference]))):
        raise UnsupportedOperation(f"{call} selects by values of activations: how many, differs from the reference's")
    same = not mode.several and all(torch.equal(o, r.expand_as(o)) for o, r in zip(found, tensors([reference])))
    if same and not whole:
        return out
    return mode.attach(call, out, reference, whole=all(not continuous(t) for t in found) and whole)


def ordered(mode, call: Call):
    """Sorted values are a selection by whole numbers: exact where the reference has the same order, else refused."""
    if mode.several:
        raise OneByOne
    out = call.run()
    values, indices = out
    reference = mode.on_reference(call, out)
    if not torch.equal(indices, reference[1].expand_as(indices)):
        raise UnsupportedOperation(f"DeepLIFT has no rule for {call} of values in another order than the reference's")
    mode.attach(call, values, reference[0])
    return out


def setitem(mode, call: Call):
    """An activation is written into a part of a tensor, perhaps of a constant one."""
    target = call.args[0]
    if any(not continuous(t) for t in tensors(call.args[1:2]) if mode.of(t)):
        return choice(mode, call, target)
    if mode.several:
        raise OneByOne
    own = mode.adopt(target)
    if own.reference.shape != target.shape:
        if target._is_view():
            raise UnsupportedOperation(f"DeepLIFT has no rule for {call} on a view of an activation; use torch.cat")
        own.reference = own.reference.expand_as(target).clone()
    call.func(*call.args)
    with mode.graph():
        call.func(own.reference, *mapped(mode.full, call.args[1:]))
    for t in (target, target._base):
        if t is not None and mode.of(t):
            t._attrain_pair.spread = t._attrain_pair.layer = None


def read(mode, call: Call):
    """A value taken out of a tensor: right for the reference too only where it is the same."""
    if not mode.selecting and any(not torch.equal(t, mode.full(t)) for t in call.active):
        raise UnsupportedOperation(f"the model reads a value of an activation ({call}); a reference has another")
    return call.run(Tensor.detach)
