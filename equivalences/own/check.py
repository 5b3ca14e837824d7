"""One line for a third party: is this implementation right, and if not, how grave is it?

`check` runs it, as its user would, on the edge problems, on drawn problems and on batches of many rows of every case,
format and layout that the caller declares, and judges each number against the *contract*: what rounding may do to
PyTorch's own function of that name, followed operation by operation (see `run.contract`).  What is beyond the contract
is judged again by the implementation's own operations, if they can be followed.  Special values are exact.  See
docs/check.md.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import nn

from equivalences import choices
from equivalences.catalogue import FAMILY_OF
from equivalences.findings.known_defects import KNOWN_DEFECTS
from equivalences.formats import FORMATS
from equivalences.model import Identity
from equivalences.own import formulas, state
from equivalences.own.callables import compiles, eager, name_of
from equivalences.own.conduct import Conduct
from equivalences.own.examples import examples as examples_of
from equivalences.own.formulas import wanted as wanted_formulas
from equivalences.own.headline import Needed
from equivalences.own.limits import Limits
from equivalences.own.losses import LOSSES, Case, WrongCall, cases, several
from equivalences.own.mistakes import likely
from equivalences.own.normalisers import normalised
from equivalences.own.problems import Todo
from equivalences.own.report import Defect, Report
from equivalences.own.run import Expected
from equivalences.own.special import NO_LIMITS, Asked
from equivalences.own.verdict import SECOND, Judge
from equivalences.own.work import Asking, asked_of, listed
from equivalences.report import plain
from equivalences.running.environment import environment
from equivalences.running.forms import recompiling

EXAMPLES = 20  # drawn problems of a case in a format
SIZES = {"R": "rows", "C": "classes"}
CHUNKED = frozenset(name for name, family in FAMILY_OF.items() if family == "linear_cross_entropy")  # by rows


def check(
    fn: Callable[..., Any],
    of: str = "cross_entropy",
    *,
    like: str | Callable[..., Any] | Sequence[str | Callable[..., Any]] | None = None,
    limits: Limits | None = None,
    supports: Collection[str] = (),
    reduction: str | Sequence[str] = "mean",
    formats: Collection[str | torch.dtype] = (),
    layouts: Sequence[str] = (),
    gradient: bool = True,
    result_format: str | torch.dtype = "",
    deterministic: bool = True,
    shape: tuple[int, ...] | None = None,
    many_rows: bool = True,
    many_classes: bool = True,
    device: str = "cpu",
    examples: int = EXAMPLES,
    seed: int = 0,
    seconds: float | None = None,
    stop: bool = False,
    name: str = "",
    progress: bool = False,
) -> Report:
    """Judges an implementation of a loss.  Never raises for what the implementation does: that is in the report.

    fn             called as ``fn(logits, target)``, with the options declared in `supports` as keywords.
    of             a loss ("cross_entropy", "soft_cross_entropy", "binary_cross_entropy_with_logits"), or an identity of
                   the catalogue, whose items fn then takes by name (``lambda z, dim: ...``).
    like           formulas that fn is to be as good as, beside PyTorch's function: names ("logsumexp - target logit",
                   "log of softmax", "softplus", "logsigmoid", "log of sigmoid"), or functions that are called as fn is.
    limits         what fn does not claim, and what is then not asked: see `Limits`.
    supports       the options that fn takes, by the names of PyTorch's function ("weight", "ignore_index",
                   "label_smoothing", "pos_weight"), and "soft_targets".
    reduction      the one that fn does ("mean"), or several, ("none", "mean", "sum"), of which it takes one by keyword.
    formats        those that fn supports, by name or as dtypes (default: all four).
    layouts        default: those of (N, C), all five; "inner" and "movedim" are (N, C, d), "unbatched" is (C,).
    gradient       whether fn has a gradient with respect to the logits.
    result_format  the format of the result ("": that of the logits).
    deterministic  whether two runs must agree bit for bit; then one under torch.no_grad() is held to the contract too.
    shape          (rows, classes), or (rows,), of every problem, for code that is compiled for one shape.
    many_rows      whether batches of thousands of rows are tried (never with a shape).
    many_classes   whether up to 131,073 classes are tried (never with a shape); without, at most 128.
    examples       drawn problems of each case in each format, beside the edge problems.
    seconds        the limit of time for one call of fn (default: none); after one that hangs nothing more is asked.
    stop           ends at the first problem that fails; small problems come first.
    name           what the report calls fn (default: its own name).

    Raises `WrongCall` or `choices.Unknown`, both ValueErrors of one line, if what is asked for does not exist.
    """
    begun = time.monotonic()
    _plain(
        examples=examples, seed=seed, gradient=gradient, deterministic=deterministic, many_rows=many_rows,
        many_classes=many_classes, shape=shape, seconds=seconds, stop=stop, limits=limits,
    )  # fmt: skip
    wanted, device = choices.formats(several("formats", formats, "float32")), choices.device(str(device))
    own = choices.formats(several("result_format", (result_format,), "float32"))[0] if result_format else ""
    name, limits = name or name_of(fn), limits or NO_LIMITS
    expected = Expected(
        {**(dict.fromkeys(FORMATS, own) if own else {}), **limits.result_format}, deterministic, of in LOSSES,
        in_place=limits.in_place, one_backward=limits.one_backward,
    )  # fmt: skip
    asked_for = Asking(
        wanted, device, examples, seed, shape, many_rows and (of in LOSSES or of in CHUNKED), many_classes
    )
    with state.known() as theirs, _grads_kept(fn):
        conduct = Conduct(seconds, theirs)
        mode = "compiled" if compiles(fn) else "eager"
        found = [_declared_so(case, gradient, limits) for case in cases(fn, of, supports, reduction, layouts)]
        judges = [
            Judge(
                case, case.form(fn, name), case.form(eager(fn), name), device, expected, shape is None, mode, conduct,
                limits, liked,
            )
            for case, liked in zip(found, _liked(like, of, found, wanted), strict=True)
        ]  # fmt: skip
        axes = next(iter(found[0].identity.domain.axes.values()), "")
        if shape is not None and len(shape) != len(axes):
            raise WrongCall(f"shape of {of} has {' and '.join(SIZES.get(each, each) for each in axes)}, got {shape!r}")
        left_out: Counter[str] = Counter()
        work = listed(judges, asked_for, limits, left_out)
        if not work:
            raise WrongCall(f"there is no problem to judge {of!r} on: give more examples, or another shape")
        with _compilable(mode), conduct.interruptible():
            questions = asked_of(judges, asked_for, limits, left_out)
            special, unasked = _judge(work, questions, f"checking {name}", progress, stop)
            for each in judges:
                each.close()
            shown = tuple(example for each in judges for example in examples_of(each))
    declared = {
        "supports": sorted(supports), "reduction": reduction, "formats": list(wanted),
        "layouts": list(found[0].identity.layouts or ()), "gradient": gradient,
        **({"like": [name for name, _ in wanted_formulas(like, of)]} if like else {}),
        **({"limits": limits.declared()} if limits.declared() else {}),
        **({"shape": shape} if shape else {}), **({} if many_rows else {"many_rows": False}),
        **({} if many_classes else {"many_classes": False}),
        **({"result_format": own} if own else {}), **({"stop": True} if stop else {}),
        "examples": examples, "seed": seed, **({} if seconds is None else {"seconds": seconds}),
    }  # fmt: skip
    every = [one for each in judges for one in each.seen]
    stopped = stop and any(each.failed for each in judges)
    kept = [SECOND] if any(each.second for each in judges) else []
    return Report(
        name, of, found[0].identity.statement, declared, _tried(work),
        next((each.opaque for each in judges if each.opaque), ""),
        tuple(cell for each in judges for cell in each.cells()), shown,
        tuple(incident for each in judges for incident in each.incidents.values()), _defects(judges),
        len({one.problem for _, one in work}), special, time.monotonic() - begun, environment(device),
        limits=tuple(limit for each in judges for limit in each.limits.values()), unasked=unasked,
        beyond=tuple(record for each in judges for record in each.beyond()), needed=_needed(judges),
        conventions=tuple(each for judge in judges for each in judge.conventions),
        mistakes=(*kept, *(() if stopped else likely(every))), left_out=dict(left_out), stopped=stopped,
    )  # fmt: skip


def _liked(like: Any, of: str, found: Sequence[Case], formats: Sequence[str]) -> list[dict[str, Identity]]:
    """For each case the formulas that are meant, once they have been tried.  Raises WrongCall."""
    given = wanted_formulas(like, of)
    every = [formulas.identities(case, given) for case in found]
    for case, liked in zip(found, every, strict=True):
        for name, identity in liked.items():
            formulas.tried(case, name, identity, next(fmt for fmt in formats if fmt in case.identity.formats))
    return every


def _declared_so(case: Case, gradient: bool, limits: Limits) -> Case:
    """The case without its gradient, or with another mean, where that is declared."""
    identity = case.identity if gradient else replace(case.identity, wrt=())
    if limits.normaliser:
        if not case.positional:
            raise WrongCall(f"the identity {case.identity.name!r} has a mean of its own: leave out normaliser=")
        identity = normalised(identity, limits.normaliser)
    return replace(case, identity=identity)


def _judge(
    work: Sequence[tuple[Judge, Todo]], questions: Iterable[tuple[Judge, Asked]], what: str, progress: bool, stop: bool
) -> tuple[int, int]:
    """Judges all problems, then asks for the special values: how many of these, and what was left undone."""
    for place, (each, one) in enumerate(plain.followed(work, what, progress)):
        each.add(one)
        if each.conduct.hung or (stop and each.failed):
            return 0, len(work) - place - 1
    special = 0
    for each, value in questions:
        special += each.ask(value)
        if stop and each.failed:
            break
    return special, 0


@contextmanager
def _grads_kept(fn: Any) -> Iterator[None]:
    """A module's own gradients are as they were: a backward pass adds to them."""
    parameters = list(fn.parameters()) if isinstance(fn, nn.Module) else []
    before = [each.grad for each in parameters]
    for each in parameters:
        each.grad = None
    try:
        yield
    finally:
        for each, grad in zip(parameters, before, strict=True):
            each.grad = grad


def _plain(*, shape: Any, seconds: Any, limits: Any, **given: Any) -> None:
    """Raises WrongCall for an argument that is no number, no truth value, or no shape."""
    if seconds is not None and not (type(seconds) in (int, float) and 0 < seconds < 1e6):
        raise WrongCall(f"seconds must be None or a number above 0, got {seconds!r}")
    if limits is not None and not isinstance(limits, Limits):
        raise WrongCall(f"limits takes Limits, as in limits=equivalences.Limits(most_classes=1024), got {limits!r}")
    for name in ("examples", "seed"):
        if type(given[name]) is not int or given[name] < 0:
            raise WrongCall(f"{name} must be a number of 0, 1, 2, ..., got {given[name]!r}")
    for name in ("gradient", "deterministic", "many_rows", "many_classes", "stop"):
        if type(given[name]) is not bool:
            raise WrongCall(f"{name} must be True or False, got {given[name]!r}")
    if shape is not None and not (isinstance(shape, tuple) and all(type(size) is int and size > 0 for size in shape)):
        raise WrongCall(f"shape must be a tuple of numbers of 1, 2, ..., as (rows, classes), got {shape!r}")


@contextmanager
def _compilable(mode: str) -> Iterator[None]:
    """Lets compiled code be built for every shape: past its limit torch would silently run it eagerly."""
    if mode == "eager":
        yield
        return
    with recompiling():
        yield


def _tried(work: Sequence[tuple[Judge, Todo]]) -> dict[str, tuple[int, int]]:
    """The fewest and the most rows and classes of the problems (and what else an identity has, by its letter)."""
    met: dict[str, set[int]] = {}
    for each, one in work:
        axes = each.case.identity.domain.axes
        for name, item in one.problem.items.items():
            for letter, size in zip(axes.get(name, ""), np.shape(item), strict=False):
                met.setdefault(SIZES.get(letter, letter), set()).add(size)
    return {what: (min(sizes), max(sizes)) for what, sizes in met.items()}


def _needed(judges: Sequence[Judge]) -> tuple[Needed, ...]:
    """The formulas whose contract was needed, over all cases."""
    total: dict[str, Needed] = {}
    for each in judges:
        for name, need in each.needs.items():
            total[name] = total[name].beside(need) if name in total else need
    return tuple(total.values())


def _defects(judges: Sequence[Judge]) -> tuple[Defect, ...]:
    total: dict[str, int] = {}
    for each in judges:
        for name, count in each.defects.items():
            total[name] = total.get(name, 0) + count
    return tuple(Defect(d.name, total[d.name], d.why, d.link) for d in KNOWN_DEFECTS if d.name in total)
