"""The contract of an implementation: the error bound of the identity's reference, and what is granted beside it.

A grant is one more thing that a competent kernel may do and the reference does not; its error is followed, or derived
from one rounding, and never typed in.  The gate, which judges PyTorch's own formulations, grants nothing.

- The exponential as exp2 of a product (folded.py).
- A gradient that is stored and then scaled: `_stored_gradient`.
- A gradient that is added up over chunks, and stored once more: `_chunked`.
- Subnormal results, of products in another order: `_subnormal`.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache

import numpy as np
import torch

from equivalences.formats import FORMATS, Format
from equivalences.judging.folded import FOLDED
from equivalences.model import Array, Identity, Problem
from equivalences.rounding import Tracker
from equivalences.rounding.arrays import as_tensor
from equivalences.running.execute import Follow, Outcome, Place, backward, canonicals, followed, prepare, run
from equivalences.running.forms import function
from equivalences.running.layouts import LAYOUTS


def contract(identity: Identity, problem: Problem, place: Place) -> Mapping[str, Array]:
    """What the reference's arithmetic allows, by quantity, and what is granted beside it.

    In compiled code its sums may be added up in the order of the compiler; in eager code, in as many parts as there
    are threads.
    """
    return _contract(identity, problem, place, torch.get_num_threads())


@lru_cache(maxsize=1024)
def _contract(identity: Identity, problem: Problem, place: Place, _threads: int) -> Mapping[str, Array]:
    if identity.bitwise:  # nothing is allowed, and the reference may run what no rule follows
        plain = Place(place.layout, place.device)
        got = run(identity, identity.reference, problem, plain, follow=None).got
        return {name: np.zeros(numbers.shape) for name, numbers in got.items()}
    found = run(identity, identity.reference, problem, place, follow=Follow(FOLDED))
    bounds, fmt = dict(found.bound), FORMATS[problem.format]
    if identity.wrt and identity.out in ("", "R"):
        for name, scaled in _stored_gradient(identity, problem, place).items():
            bounds[name] = np.where(np.isfinite(scaled), np.fmax(bounds[name], scaled), bounds[name])
    for name in identity.wrt:
        if identity.domain.axes[name] not in ELEMENTWISE:
            gradient = f"gradient {name}"
            bounds[gradient] = _chunked(found, gradient, bounds[gradient], fmt)
    return {name: _subnormal(found.exact[name], bound, fmt) for name, bound in bounds.items()}


def _stored_gradient(identity: Identity, problem: Problem, place: Place) -> dict[str, Array]:
    """A grant: the bound of a gradient that is computed under upstream 1, stored, and then multiplied.

    So does a fused kernel, in its forward pass: one rounding more, of the gradient itself, than autograd has.
    """
    dim, tracker = LAYOUTS[place.layout].dim, Tracker(place.device, place.mode, FOLDED)
    bench = followed(tracker, prepare(identity, problem, place))
    upstream = bench.upstream
    assert upstream is not None
    with tracker:
        value = function(identity.reference, tuple(bench.items))(**bench.items)
        found = backward(value, bench.leaves, torch.ones_like(value))
        scaled = {
            f"gradient {name}": x * (upstream.unsqueeze(dim) if x.dim() > upstream.dim() > 0 else upstream)
            for name, x in found.items()
            if identity.out == "" or identity.domain.axes[name].startswith("R")  # else rows are added up in it
        }
    bounds = {name: as_tensor(tracker.shadow(x).e) for name, x in scaled.items()}
    return canonicals(identity, problem, place.layout, bounds)


ELEMENTWISE = ("R", "RC")  # an item whose gradient is a number for each number, and no sum of several


def _chunked(found: Outcome, gradient: str, bound: Array, fmt: Format) -> Array:
    """A grant: a gradient that is added up over chunks of rows, or of classes, is rounded once more to its format.

    A kernel that never holds all logits at once adds the share of each chunk to what is stored.
    """
    size = abs(found.exact[gradient]) + bound
    return np.asarray(bound + fmt.u * size + fmt.eta / 2)


def _subnormal(exact: Array, bound: Array, fmt: Format) -> Array:
    """A grant: where a result is subnormal, it may be off by one more unit of the smallest subnormal.

    A gradient is a product of an exponential, of 1 / (their sum), of 1 / (number of rows) and of the gradient from
    above, in one order or another.  A product that is subnormal, and stored, is rounded to a multiple of eta: it is off
    by eta / 2, whatever its size, and two of these may be stored that the reference keeps.
    """
    return np.asarray(bound + fmt.eta * (abs(exact) + bound < fmt.tiny) * (bound > 0))
