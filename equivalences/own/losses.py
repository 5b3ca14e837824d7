"""What `of` names: a loss and its options, or an identity of the catalogue; and how an implementation is called.

A loss is called as PyTorch's function of that name: ``fn(logits, target)``, and with the options that the caller
declares as keywords, as that function names them.  Nothing is tried out: what is not declared is not asked for.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from types import SimpleNamespace
from typing import Any

import torch

from equivalences import choices
from equivalences.catalogue import IDENTITIES
from equivalences.catalogue.binary import log_loss
from equivalences.catalogue.binary_options import reduced
from equivalences.catalogue.cross_entropy import loss as cross_entropy_loss
from equivalences.model import Domain, Form, Identity, Problem
from equivalences.problems.classes import classes
from equivalences.problems.scalars import scalars

REDUCTIONS = ("none", "mean", "sum")
PLAIN = ("contiguous", "strided", "transposed", "offset", "expanded")  # one shape, otherwise in memory


class WrongCall(ValueError):
    """`check` was asked for what it cannot do; the message says in one line what is wrong and what would be right."""


@dataclass(frozen=True, eq=False)
class Case:
    """One identity that the implementation must satisfy, and the names of the items it is called with.

    Of a loss also the kind of target and the reductions that it is about.
    """

    label: str
    identity: Identity
    positional: tuple[str, ...] = ()
    keywords: tuple[str, ...] = ()
    kind: str = ""
    reductions: tuple[str, ...] = ()

    def form(self, fn: Callable[..., Any], name: str) -> Form:
        """The implementation as a form of the identity."""
        if not self.positional:  # by name, as any form that is a callable
            return Form(fn, label=name)

        def call(**items: Any) -> Any:
            return fn(*map(items.get, self.positional), **{each: items[each] for each in self.keywords})

        return Form(call, label=name)

    def spelled(self, problem: Problem) -> Form:
        """The call as an expression in `fn`, for a program that repeats it."""
        named = (f"{each}={each}" for each in self.keywords if each in (*problem, "dim"))
        return Form(f"fn({', '.join((*self.positional, *named))})")


@dataclass(frozen=True, eq=False)
class Loss:
    """A loss by PyTorch's name: the options that an implementation may support, and the identities that follow.

    targets  the kinds of target -> name of the item; the first is judged always, the others if they are declared.
    domain   (kind of target, options, reductions, axes of the result, layouts) -> problems.
    """

    name: str
    statement: str
    source: str
    function: str  # PyTorch's own, which is the reference
    targets: dict[str, str]
    options: tuple[str, ...]
    layouts: tuple[str, ...]
    domain: Callable[[str, Collection[str], tuple[str, ...], str, tuple[str, ...]], Domain]
    spec: Callable[..., Any]

    @property
    def supports(self) -> tuple[str, ...]:
        """What may be declared."""
        return (*self.options, *list(self.targets)[1:])

    def cases(self, supports: Collection[str], reduction: str | Sequence[str], layouts: tuple[str, ...]) -> list[Case]:
        """What an implementation with these options and reductions is judged by."""
        wanted = (reduction,) if isinstance(reduction, str) else tuple(reduction)
        made = []
        for index, (kind, item) in enumerate(self.targets.items()):
            if index and kind not in supports:
                continue
            given = tuple(option for option in self.options if option in supports and _applies(option, kind))
            for out, some in (("R", ("none",)), ("", tuple(each for each in wanted if each != "none"))):
                if (out == "R" and "none" not in wanted) or not some:
                    continue
                keywords = given if isinstance(reduction, str) else (*given, "reduction")
                options = ", ".join(f"{each}={each}" for each in (*given, "reduction"))
                identity = Identity(
                    name=self.name,
                    statement=self.statement,
                    source=self.source,
                    domain=self.domain(kind, given, some, out, layouts),
                    spec=self.spec,
                    forms=(Form(f"{self.function}(z, {item}, {options})", label=self.function),),
                    out=out,
                    counts_rows=out == "",
                    layouts=layouts,
                )
                label = f"reduction {' or '.join(some)}" + (f", {kind.replace('_', ' ')}" if index else "")
                made.append(Case(label, identity, ("z", item), keywords, kind, some))
        return made


def _applies(option: str, kind: str) -> bool:
    return not (option == "ignore_index" and kind == "soft_targets")  # PyTorch: class indices only


def _class_problems(
    kind: str, options: Collection[str], reductions: tuple[str, ...], out: str, layouts: tuple[str, ...]
) -> Domain:
    soft = kind == "soft_targets"
    return classes(
        labels=not soft,
        soft=soft,
        weight="optional" if "weight" in options else False,
        ignore="ignore_index" in options,
        smoothing="label_smoothing" in options,
        reduction=reductions,
        out=out,
        layouts=layouts,
    )


def _scalar_problems(
    kind: str, options: Collection[str], reductions: tuple[str, ...], out: str, layouts: tuple[str, ...]
) -> Domain:
    return scalars(
        target="soft" if kind == "soft_targets" else "index",
        weight="weight" in options,
        pos_weight="pos_weight" in options,
        reduction=reductions,
        out=out,
        layouts=layouts,
    )


def _binary_loss(p: SimpleNamespace) -> Any:
    count = len(p.z)
    weight, positive = getattr(p, "weight", [1] * count), getattr(p, "pos_weight", 1)
    rows = [w * log_loss(z, t, positive) for w, z, t in zip(weight, p.z, p.t, strict=True)]
    return rows if p.reduction == "none" else reduced(p, rows)


LOSSES = {
    loss.name: loss
    for loss in (
        Loss(
            "cross_entropy",
            r"\ell_n = -[y_n \ne i] \sum_k w_k q_{nk} \log \mathrm{softmax}(z_n)_k, \quad"
            r" q_{nk} = (1 - \alpha) [k = y_n] + \alpha / K",
            "torch.nn.CrossEntropyLoss documentation",
            "F.cross_entropy",
            {"index_targets": "y", "soft_targets": "p"},
            ("weight", "ignore_index", "label_smoothing"),
            (*PLAIN, "inner", "movedim", "unbatched"),
            _class_problems,
            cross_entropy_loss,
        ),
        Loss(
            "soft_cross_entropy",
            r"\ell_n = -\sum_k w_k q_{nk} \log \mathrm{softmax}(z_n)_k, \quad"
            r" q_{nk} = (1 - \alpha) p_{nk} + \alpha / K",
            "torch.nn.CrossEntropyLoss documentation, class probabilities",
            "F.cross_entropy",
            {"soft_targets": "p"},
            ("weight", "label_smoothing"),
            (*PLAIN, "inner", "movedim", "unbatched"),
            _class_problems,
            cross_entropy_loss,
        ),
        Loss(
            "binary_cross_entropy_with_logits",
            r"\ell_n = -w_n \left(p\, t_n \log\sigma(z_n) + (1 - t_n) \log(1 - \sigma(z_n))\right)",
            "torch.nn.BCEWithLogitsLoss documentation",
            "F.binary_cross_entropy_with_logits",
            {"hard_targets": "t", "soft_targets": "t"},
            ("weight", "pos_weight"),
            ("contiguous", "strided", "offset", "expanded", "unbatched"),
            _scalar_problems,
            _binary_loss,
        ),
    )
}

AMBIGUOUS = {
    "binary_cross_entropy": "'binary_cross_entropy_with_logits' for a function of logits, "
    "'binary_cross_entropy_of_probabilities' for one of probabilities",
    "bce": "'binary_cross_entropy_with_logits' for a function of logits, "
    "'binary_cross_entropy_of_probabilities' for one of probabilities",
}


def several(what: str, given: Any, example: str) -> tuple[str, ...]:
    """The names that an argument holds (those of dtypes: "float32"); one alone, or anything else, is a wrong call."""
    if isinstance(given, str) or not isinstance(given, Collection):
        meant = given if isinstance(given, str) else example
        raise WrongCall(f"{what} takes several names: {what}=({meant!r},), got {given!r}")
    names = tuple(str(each).removeprefix("torch.") if isinstance(each, torch.dtype) else each for each in given)
    if strange := [each for each in names if not isinstance(each, str)]:
        raise WrongCall(f"{what} takes names, such as {example!r}, got {strange[0]!r}")
    return names


def cases(
    fn: Callable[..., Any], of: str, supports: Collection[str], reduction: str | Sequence[str], layouts: Sequence[str]
) -> list[Case]:
    """What `of` asks of the implementation, after a look at whether it can be called so.  Raises WrongCall."""
    if not callable(fn):
        raise WrongCall(f"check needs a function, a module or another callable, not {type(fn).__name__}")
    if not isinstance(of, str):
        raise WrongCall(f"of takes the name of a loss or of an identity: of='cross_entropy', got {of!r}")
    if of in AMBIGUOUS and not _by_name(fn, of):
        raise WrongCall(f"of={of!r} says too little: {AMBIGUOUS[of]}")
    loss = LOSSES.get(of)
    if loss is None and of not in IDENTITIES:
        hint = choices.hint(of, [*LOSSES, *IDENTITIES], f"losses are {', '.join(LOSSES)}")
        raise WrongCall(f"unknown of={of!r}: {hint} (identities: `python -m equivalences list`)")
    for option in several("supports", supports, "weight"):
        if loss is None or option not in loss.supports:
            known = f"{of} has {', '.join(loss.supports)}" if loss else f"the identity {of} has none"
            raise WrongCall(f"unknown option {option!r} in supports: {known}")
    if loss is None:
        return _of_identity(fn, IDENTITIES[of], layouts)
    for each in (reduction,) if isinstance(reduction, str) else several("reduction", reduction, "mean"):
        if each not in REDUCTIONS:
            raise WrongCall(f"unknown reduction {each!r}: choose from {', '.join(REDUCTIONS)}")
    if not reduction:
        raise WrongCall("reduction must name at least one of none, mean, sum")
    found = loss.cases(supports, reduction, chosen(layouts, loss.layouts, of))
    for case in found:
        _callable_so(fn, case)
    return found


def chosen(layouts: Sequence[str], known: tuple[str, ...], of: str) -> tuple[str, ...]:
    """The declared layouts in the order of those that there are (none: those of one shape)."""
    for name in several("layouts", layouts, "contiguous"):
        if name not in known:
            raise WrongCall(f"unknown layout {name!r} of {of}: choose from {', '.join(known)}")
    return tuple(name for name in known if name in (layouts or PLAIN))


def _of_identity(fn: Callable[..., Any], identity: Identity, layouts: Sequence[str]) -> list[Case]:
    known = identity.layouts or identity.domain.layouts
    names = [name for name in identity.domain.axes if name != "g" or not identity.wrt]
    names += [name for name in identity.domain.edges("float32")[0].items if name not in identity.domain.axes]
    try:
        parameters = inspect.signature(fn).parameters.values()
    except Exception:
        raise WrongCall(
            f"the parameters of {type(fn).__name__} cannot be read: wrap it, as in lambda {', '.join(names)}: ..."
        ) from None
    lacking = [
        p.name for p in parameters
        if p.default is p.empty and p.kind not in (p.VAR_KEYWORD, p.VAR_POSITIONAL) and p.name not in (*names, "dim")
    ]  # fmt: skip
    if lacking:
        raise WrongCall(
            f"of={identity.name!r} calls fn by name, with {', '.join(names)} and dim; this one also asks for "
            f"{', '.join(lacking)}: wrap it, as in lambda {', '.join(names)}: ..."
        )
    narrowed = replace(identity, layouts=chosen(layouts, known, identity.name))
    every = any(p.kind is p.VAR_KEYWORD for p in parameters)
    taken = tuple(name for name in (*names, "dim") if every or name in {p.name for p in parameters})
    return [Case("as the identity says", narrowed, keywords=taken)]


def _by_name(fn: Callable[..., Any], of: str) -> bool:
    """Whether a function takes exactly the items of the identity of that name: then it is meant."""
    try:
        taken = set(inspect.signature(fn).parameters)
    except Exception:
        return False
    return of in IDENTITIES and taken == set(IDENTITIES[of].domain.axes) - {"g"}


def _callable_so(fn: Callable[..., Any], case: Case) -> None:
    try:
        signature = inspect.signature(fn)
    except Exception:  # built in, or of a type with code of its own: it will say itself what it does not take
        return
    try:
        signature.bind(*case.positional, **dict.fromkeys(case.keywords))
    except TypeError as error:
        call = ", ".join(("logits", "target", *(f"{each}=..." for each in case.keywords)))
        raise WrongCall(
            f"fn{signature} cannot be called as fn({call}): {error}.  Wrap it, as in lambda logits, target: ..., or "
            "declare with supports= and reduction= what it takes"
        ) from None
