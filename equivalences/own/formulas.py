"""Formulas that an implementation may be as good as: `check(..., like=...)`, by name or as functions.

What is exact stays what `of` says; the contract of a number is the largest of the reference's and of each formula's.
A named formula takes the items of a problem by name, and computes every kind of target, option and reduction.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from equivalences import choices
from equivalences.findings.model import Gives
from equivalences.judging import judge
from equivalences.judging.facts import OUTSIDE
from equivalences.model import Form, Identity, Problem
from equivalences.own.callables import name_of
from equivalences.own.losses import Case, WrongCall
from equivalences.running.execute import Place, run


@dataclass(frozen=True, eq=False)
class Formula:
    """A formula by name, and the losses or identities that it is one of."""

    name: str
    of: tuple[str, ...]
    code: Callable[..., Tensor]


# --- of class logits: minus the logarithms of all probabilities, and what a loss makes of them -----------------------


def _row_losses(
    minus_log: Tensor, dim: int, y: Tensor | None, p: Tensor | None, weight: Tensor | None, smoothing: float
) -> Tensor:
    classes = minus_log.shape[dim]
    shape = [1] * minus_log.dim()
    shape[dim] = classes
    weights = None if weight is None else weight.reshape(shape)
    if p is not None:
        q = p * (1 - smoothing) + smoothing / classes if smoothing else p
        return (minus_log * q if weights is None else minus_log * q * weights).sum(dim)
    assert y is not None
    of_target = minus_log.gather(dim, y.unsqueeze(dim)).squeeze(dim)
    of_target = of_target if weight is None else of_target * weight[y]
    if not smoothing:
        return of_target
    of_all = (minus_log if weights is None else minus_log * weights).sum(dim)
    return of_target * (1 - smoothing) + of_all * (smoothing / classes)


def _of_classes(minus_log_of: Callable[[Tensor, int], Tensor]) -> Callable[..., Tensor]:
    def loss(
        z: Tensor,
        dim: int,
        reduction: str,
        y: Tensor | None = None,
        p: Tensor | None = None,
        weight: Tensor | None = None,
        ignore_index: int = -100,
        label_smoothing: float = 0.0,
    ) -> Tensor:
        kept = None if y is None else y != ignore_index
        labels = None if y is None or kept is None else torch.where(kept, y, 0)
        rows = _row_losses(minus_log_of(z, dim), dim, labels, p, weight, label_smoothing)
        rows = rows if kept is None else torch.where(kept, rows, 0.0)
        if reduction != "mean":
            return rows if reduction == "none" else rows.sum()
        if kept is None or labels is None:
            return rows.sum() / rows.numel()
        if weight is None:
            return rows.sum() / int(kept.sum())
        return rows.sum() / torch.where(kept, weight[labels], 0.0).sum()

    return loss


# --- of one logit ----------------------------------------------------------------------------------------------------


def _of_logits(rows_of: Callable[[Tensor, Tensor, Any], Tensor]) -> Callable[..., Tensor]:
    def loss(
        z: Tensor, t: Tensor, reduction: str, weight: Tensor | None = None, pos_weight: Tensor | None = None
    ) -> Tensor:
        rows = rows_of(z, t, pos_weight)
        rows = rows if weight is None else rows * weight
        return rows if reduction == "none" else rows.sum() if reduction == "sum" else rows.mean()

    return loss


def _by_softplus(z: Tensor, t: Tensor, positive: Tensor | None) -> Tensor:
    zero = torch.zeros_like(z)
    if positive is None:
        return torch.logaddexp(z, zero) - t * z
    return (1 - t) * z + (1 + (positive - 1) * t) * torch.logaddexp(-z, zero)


def _by_logsigmoid(z: Tensor, t: Tensor, positive: Tensor | None) -> Tensor:
    hit = t if positive is None else t * positive
    return -(hit * F.logsigmoid(z) + (1 - t) * F.logsigmoid(-z))


def _by_sigmoid(z: Tensor, t: Tensor, positive: Tensor | None) -> Tensor:
    s, hit = torch.sigmoid(z), t if positive is None else t * positive
    return -(hit * torch.log(s) + (1 - t) * torch.log(1 - s))


_CLASSES, _BINARY = ("cross_entropy", "soft_cross_entropy"), ("binary_cross_entropy_with_logits",)

FORMULAS = (
    Formula(
        "logsumexp - target logit",
        _CLASSES,
        _of_classes(lambda z, dim: torch.logsumexp(z, dim, keepdim=True) - z),
    ),
    Formula("log of softmax", _CLASSES, _of_classes(lambda z, dim: -torch.log(F.softmax(z, dim)))),
    Formula("softplus", _BINARY, _of_logits(_by_softplus)),
    Formula("logsigmoid", _BINARY, _of_logits(_by_logsigmoid)),
    Formula("log of sigmoid", _BINARY, _of_logits(_by_sigmoid)),
    Formula("logits - logsumexp", ("log_softmax",), lambda z, dim: z - torch.logsumexp(z, dim, keepdim=True)),
    Formula("log of softmax", ("log_softmax",), lambda z, dim: torch.log(F.softmax(z, dim))),
)


# --- what `like` means -----------------------------------------------------------------------------------------------


def wanted(like: Any, of: str) -> tuple[tuple[str, Any], ...]:
    """The formulas that were given, each with its name.  Raises WrongCall."""
    given = () if like is None else (like,) if isinstance(like, str) or callable(like) else tuple(like)
    known = {each.name: each.code for each in FORMULAS if of in each.of}
    found = []
    for each in given:
        if callable(each):
            found.append((name_of(each), each))
        elif each in known:
            found.append((each, known[each]))
        else:
            hint = (
                choices.hint(str(each), list(known), f"choose from {', '.join(known)}") if known else "none has a name"
            )
            raise WrongCall(
                f"unknown formula like={each!r} of {of}: {hint}, or give a function that is called as fn is"
            )
    return tuple(found)


def identities(case: Case, formulas: Sequence[tuple[str, Any]]) -> dict[str, Identity]:
    """The case's identity with each formula as its reference: its contract is the formula's."""
    named = {each.code for each in FORMULAS}
    forms = {name: Form(code, label=name) if code in named else case.form(code, name) for name, code in formulas}
    return {name: replace(case.identity, forms=(form,)) for name, form in forms.items()}


TRIED = 12  # problems of a formula, before anything else is done


def tried(case: Case, name: str, liked: Identity, fmt: str) -> None:
    """Raises WrongCall unless a formula can be followed, and is the same function, on small problems."""
    small = sorted(case.identity.domain.edges(fmt), key=lambda each: next(iter(each.items.values())).size)
    for problem in small[:TRIED]:
        same(case.identity, name, liked, problem)


@lru_cache(maxsize=256)
def same(identity: Identity, name: str, liked: Identity, problem: Problem) -> None:
    """Raises WrongCall unless a formula can be followed in float64, and encloses the exact value there."""
    place = Place("unbatched" if judge.layouts(identity) == ("unbatched",) else "contiguous")
    try:
        found = run(liked, liked.reference, problem, place, fmt="float64")
    except Exception as error:
        said = " ".join(str(error).split())[:200]
        raise WrongCall(f"like={name!r} cannot be followed: {type(error).__name__}: {said}") from None
    for quantity, numbers in found.exact.items():
        fact, _, ball = judge.decide(identity, problem, quantity, numbers, found.bound[quantity])
        if (fact == OUTSIDE).any():
            at = tuple(np.argwhere(fact == OUTSIDE)[0].tolist())
            raise WrongCall(
                f"like={name!r} is another function: its {quantity} is {float(numbers[at]):.9g} without any rounding, "
                f"where {float(ball.nearest[at]):.9g} is right"
            )


def plainly(liked: Identity, problem: Problem, place: Place) -> Gives | None:
    """What a formula itself gives, as it is run (None: it raises)."""
    try:
        got = run(liked, liked.reference, problem, place, follow=None).got
    except Exception:  # it is no implementation that is judged
        return None
    return Gives(got["value"], got.get("gradient z"), problem.format)
