"""The contract of an implementation: the error bound of the identity's reference, and what is granted beside it.

A grant is one more thing that a competent kernel may do and the reference does not; its error is followed, not typed
in.  The gate, which judges PyTorch's own formulations, grants nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache

import numpy as np
import torch

from equivalences.model import Array, Identity, Problem
from equivalences.rounding import Tracker
from equivalences.rounding.arrays import as_tensor
from equivalences.running.execute import Place, backward, canonicals, followed, prepare, run
from equivalences.running.forms import function
from equivalences.running.layouts import LAYOUTS


def contract(identity: Identity, problem: Problem, place: Place) -> Mapping[str, Array]:
    """What the reference's arithmetic allows, by quantity; of a gradient also if it is stored and then scaled.

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
    bounds = dict(run(identity, identity.reference, problem, place).bound)
    if identity.wrt and identity.out in ("", "R"):
        for name, scaled in _stored_gradient(identity, problem, place).items():
            bounds[name] = np.where(np.isfinite(scaled), np.fmax(bounds[name], scaled), bounds[name])
    return bounds


def _stored_gradient(identity: Identity, problem: Problem, place: Place) -> dict[str, Array]:
    """A grant: the bound of a gradient that is computed under upstream 1, stored, and then multiplied.

    So does a fused kernel, in its forward pass: one rounding more, of the gradient itself, than autograd has.
    """
    dim, tracker = LAYOUTS[place.layout].dim, Tracker(place.device, place.mode)
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
