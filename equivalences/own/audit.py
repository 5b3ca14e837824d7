"""Where does my loss lose its digits?  The table of operations of one run, each with its error, bound and share.

`audit` runs a function once under the running error analysis and lists every ATen operation, forward and (if asked
for) backward.  Then it asks, for the worst number of the result, how much of its bound each operation's own rounding
makes: the run is followed again once an operation, with all other operations taken for exact (their rules run with a
unit roundoff of zero), so that only what this one loses arrives at the end.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from equivalences import formats
from equivalences.judging import known
from equivalences.model import Array
from equivalences.own.callables import eager, name_of
from equivalences.report import plain
from equivalences.rounding import RULES, Call, Rule, Shadow, Tracker
from equivalences.rounding.arrays import numbers, spread, sure
from equivalences.rounding.call import tensors as tensors_of

Rules = Mapping[str, Rule]
CONVERSIONS = ("_to_copy", "to", "copy")  # they round by the dtypes at hand
ENDLESS = 1000  # significant bits: nothing that float64 could show is lost
MATTERS = 1 / 100  # shares below are not traced to an entry


@dataclass(frozen=True)
class Operation:
    """One operation as it ran, shown by one entry of its result: the one through which its rounding reaches the audited
    number if its share is a hundredth or more, else the one that is least certain relative to its size; and if any lies
    outside its bound, the one that is furthest.

    value          what exact arithmetic would have given there (float64).
    error          |computed - value| (nan in float64, where `value` is no better than what was computed).
    bound          the running analysis' bound on it (inf: none).
    amplification  how many times the relative bound grew from the least certain operand (nan: operands are exact).
    share          the part of the bound on the audited number that this operation's own rounding makes (nan: no bound).
    beyond         it lies outside its bound: this kernel, or one before it, does not do what it documents.
    format         of the result.
    """

    number: int
    phase: str
    name: str
    shape: tuple[int, ...]
    value: float
    error: float
    bound: float
    amplification: float
    share: float
    beyond: bool
    format: str

    @property
    def digits(self) -> float:
        """Decimal digits of the value that the bound leaves certain (nan: the bound does not hold)."""
        if self.beyond:
            return math.nan
        if self.bound == 0:
            return math.inf
        ratio = self.bound / abs(self.value) if self.value else math.inf
        return max(0.0, -math.log10(ratio)) if ratio < math.inf else 0.0


@dataclass(frozen=True)
class Audit:
    """All operations of a run, and the number whose bound they share out: `quantity` at `index`."""

    function: str
    device: str
    format: str
    quantity: str
    index: tuple[int, ...]
    computed: float
    value: float
    bound: float
    operations: tuple[Operation, ...]

    @property
    def loses(self) -> Operation | None:
        """The operation that loses most of the digits: the first without a bound, or the one with the largest share."""
        return culprit(self.operations, self.bound)

    def __str__(self) -> str:
        at = f"{self.quantity} {list(self.index)}" if self.index else self.quantity
        rows = [
            (
                str(o.number), o.phase, f"aten::{o.name}", "x".join(map(str, o.shape)) or "scalar", _number(o.value),
                _number(o.error), _number(o.bound), _digits(o.digits), _times(o.amplification), _percent(o.share),
            )
            for o in self.operations
        ]  # fmt: skip
        header = ("#", "phase", "operation", "shape", "value", "error", "bound", "digits", "amplification", "share")
        title = f"{self.function} in {self.format}: {at} = {self.computed:.9g}, without rounding {self.value:.9g} "
        title += f"(bound {_number(self.bound)})"
        lines = [plain.table(header, rows, title=title, left=3)]
        if wrong := next((o for o in self.operations if o.beyond), None):
            lines += ["", _wrong(wrong, len(self.operations), self.device)]
        elif lost := self.loses:
            lines += ["", explained(lost, self.operations, self.bound, at)]
        return "\n".join(lines)

    def as_dict(self) -> dict[str, Any]:
        """Plain data; numbers that are not finite become the strings "inf" and "nan"."""
        made: dict[str, Any] = plain_data(asdict(self))
        return made


def audit(
    fn: Callable[..., Any], *inputs: Any, gradient: bool = False, upstream: Tensor | None = None, **options: Any
) -> Audit:
    """Follows one run of `fn(*inputs, **options)` and says which operation makes how much of its error bound.

    Floating-point inputs are taken for exact.  With `gradient`, the audited numbers are those of the gradient under
    `upstream` (default: ones) with respect to the inputs that require one, or to all floating-point inputs if none
    does.  Raises `rounding.Untracked`, naming the operation, where the analysis cannot follow, and ValueError for
    inputs or results without floating-point numbers.
    """
    tensors = [x for x in inputs if isinstance(x, Tensor) and x.is_floating_point()]
    if not tensors:
        raise ValueError("audit needs at least one floating-point tensor among the inputs of the function")
    name, fn = name_of(fn), eager(fn)
    asked = [x.requires_grad for x in inputs if isinstance(x, Tensor)]
    wanted: tuple[str, tuple[int, ...]] | None = None

    def run(rules: Rules) -> tuple[Tracker, dict[str, Tensor]]:
        tracker = Tracker(device=tensors[0].device.type, as_is=rules)
        taken, leaves = [], {}
        for place, x in enumerate(inputs):
            if isinstance(x, Tensor):
                needed = gradient and x.is_floating_point() and (x.requires_grad or not any(asked))
                x = tracker.declare(x.detach().clone())
                if needed:
                    leaves[f"gradient of input {place}"] = x.requires_grad_()
            taken.append(x if isinstance(x, Tensor) else tracker.taken(x))
        if isinstance(fn, nn.Module):
            for each in (*fn.parameters(), *fn.buffers()):
                tracker.declare(each)
        weights = None if upstream is None else tracker.declare(upstream.detach().clone())
        fresh = {key: x.detach().clone() if isinstance(x, Tensor) else x for key, x in options.items()}
        followed = {key: tracker.taken(x) for key, x in fresh.items()}
        with tracker:
            value = fn(*taken, **followed)
            if not isinstance(value, Tensor) or not value.is_floating_point():
                raise ValueError(f"audit needs a function that returns a floating-point tensor, not {_kind(value)}")
            if not gradient:
                return tracker, {"value": value}
            gradients = torch.autograd.grad(
                value, list(leaves.values()), torch.ones_like(value) if weights is None else weights
            )
        return tracker, dict(zip(leaves, gradients, strict=True))

    def bound(rules: Rules) -> float:
        nonlocal wanted
        tracker, results = run(rules)
        shadows = {name: tracker.shadow(tensor) for name, tensor in results.items()}
        if wanted is None:
            wanted = max(
                ((name, _worst(shadow)) for name, shadow in shadows.items()),
                key=lambda at: float(_relative(shadows[at[0]])[at[1]]),
            )
            found.update(results=results, shadows=shadows)
        return float(shadows[wanted[0]].e[wanted[1]])

    found: dict[str, Any] = {}
    operations, total = follow(bound)
    assert wanted is not None
    quantity, index = wanted
    result = found["results"][quantity].detach()
    return Audit(
        name, result.device.type, formats.of(result.dtype).name, quantity, index, float(result[index]),
        float(found["shadows"][quantity].v[index]), total, operations,
    )  # fmt: skip


# --- following a run, operation by operation -------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class _Seen:
    """One call of a rule: what came out, what should have, the bound, and the largest relative bound that went in."""

    number: int
    phase: str
    name: str
    format: str
    computed: Array
    shadow: Shadow
    before: float


class Watch:
    """Rules that do what the registered ones do, note what comes out, and may take operations for exact.

    only     the number of the one operation that rounds (None: all do; -1: none does).
    entries  the range of its result's entries, flattened, in which it does (None: all).
    """

    def __init__(self, only: int | None = None, entries: tuple[int, int] | None = None) -> None:
        self.only, self.entries, self.calls = only, entries, 0
        self.seen: list[_Seen] = []
        self.rules: Rules = {name: partial(self._call, rule) for name, rule in RULES.items()}

    def _call(self, rule: Rule, call: Call) -> Any:
        number, self.calls = self.calls, self.calls + 1
        before = max((float(_relative(call.shadow(x)).max()) for x in _operands(call)), default=0.0)
        exact = self.only is not None and number != self.only
        if exact:
            call.format, call.arithmetic = (replace(f, precision=ENDLESS) for f in (call.format, call.arithmetic))
        if exact and call.name in CONVERSIONS:
            shadows: Any = call.shadow(call.arguments["src" if call.name == "copy" else "self"])
        else:
            shadows = rule(call)
        first = shadows[0] if isinstance(shadows, list) else shadows
        out = next((x for x in tensors_of(call.out) if x.is_floating_point()), None)
        if not isinstance(first, Shadow) or out is None or not out.numel():
            return shadows
        v, e = spread(first.v, out.shape), spread(sure(*first), out.shape)
        phase = "backward" if torch._C._current_graph_task_id() >= 0 else "forward"
        computed = np.full(out.shape, math.nan) if out.dtype == torch.float64 else numbers(out)  # no better than v
        self.seen.append(_Seen(number, phase, call.name, formats.of(out.dtype).name, computed, Shadow(v, e), before))
        if number == self.only and self.entries:
            inside = np.zeros(out.numel(), dtype=bool)
            inside[slice(*self.entries)] = True
            part = Shadow(v, np.where(inside.reshape(out.shape), e, 0.0))
            return [part, *shadows[1:]] if isinstance(shadows, list) else part
        return shadows


def follow(bound: Callable[[Rules], float]) -> tuple[tuple[Operation, ...], float]:
    """The operations of a run with their shares, and the whole bound of the number that `bound` returns.

    `bound` must run the same operations each time, under the rules that it is given.
    """
    watch = Watch()
    total = bound(watch.rules)
    if not 0 < total < math.inf:
        return tuple(_operation(each, place, math.nan) for place, each in enumerate(watch.seen, 1)), total
    rest = bound(Watch(only=-1).rules)  # constants rounded on their way in
    found = []
    for place, each in enumerate(watch.seen, 1):
        share = max(0.0, bound(Watch(only=each.number).rules) - rest) / total
        at = _through(each, bound) if share >= MATTERS else None
        found.append(_operation(each, place, share, at))
    return tuple(found), total


def _through(seen: _Seen, bound: Callable[[Rules], float]) -> tuple[int, ...]:
    """The entry of a result through which most of its rounding reaches the audited number, by bisection."""
    low, high = 0, seen.computed.size
    while high - low > 1:
        middle = (low + high) // 2
        halves = [(low, middle), (middle, high)]
        low, high = max(halves, key=lambda half: bound(Watch(seen.number, half).rules))
    return _place(low, seen.computed.shape)


def _operation(seen: _Seen, number: int, share: float, at: tuple[int, ...] | None = None) -> Operation:
    with np.errstate(invalid="ignore"):
        off = np.abs(seen.computed - seen.shadow.v) - seen.shadow.e  # nan where there is no bound, and in float64
    lost = np.isnan(seen.computed) & np.isfinite(seen.shadow.e) & (seen.format != "float64")
    beyond = bool((off > 0).any() or lost.any())
    if (off > 0).any():
        at = _place(int(np.nanargmax(off)), off.shape)
    at = _worst(seen.shadow) if at is None else at
    v, e = (x[at].item() for x in seen.shadow)
    after = _relative(seen.shadow)[at].item()
    return Operation(
        number, seen.phase, seen.name, tuple(seen.computed.shape), v, abs(seen.computed[at].item() - v), e,
        after / seen.before if seen.before and after else math.nan, share, beyond, seen.format,
    )  # fmt: skip


def culprit(operations: tuple[Operation, ...], bound: float) -> Operation | None:
    """The first operation without a bound if the result has none, else the one that makes most of it."""
    if bound == math.inf:
        return next(
            (o for o in operations if o.bound == math.inf and not o.name.startswith(("empty", "new_empty"))), None
        )
    shared = [o for o in operations if o.share > 0]
    return max(shared, key=lambda o: o.share, default=None)


def explained(lost: Operation, operations: tuple[Operation, ...], bound: float, what: str) -> str:
    """One sentence: which operation loses the digits of `what`, and which one makes the loss matter."""
    where = f"aten::{lost.name} (operation {lost.number} of {len(operations)}, {lost.phase})"
    if bound == math.inf:
        return f"{what} has no bound from {where} on: {_no_bound(lost)}."
    text = f"{_percent(lost.share)} of the bound on {what} is made by {where}, whose result {_number(lost.value)} "
    text += f"is certain to {_digits(lost.digits)} digits"
    grown = max(
        (o for o in operations[lost.number :] if 2 <= o.amplification < math.inf),
        key=lambda o: o.amplification,
        default=None,
    )
    if grown:
        times = _times(grown.amplification)
        text += f"; aten::{grown.name} (operation {grown.number}) makes the relative error {times} larger"
    return text + "."


def _wrong(wrong: Operation, of: int, device: str) -> str:
    """One sentence about a kernel that is not what its rule says; what it gives cannot be accounted for."""
    here = known.existing(wrong.format, device, "eager")
    names = [defect.name for defect in here if defect.operation == wrong.name]
    named = f" (perhaps the known defect {' or '.join(names)})" if names else ""
    return (
        f"aten::{wrong.name} (operation {wrong.number} of {of}, {wrong.phase}) gives what is {_number(wrong.error)} "
        f"off, and may be {_number(wrong.bound)} off: the kernel does not do what it documents{named}, and no bound "
        "from there on holds."
    )


def _no_bound(lost: Operation) -> str:
    if math.isinf(lost.value) or math.isnan(lost.value):
        return f"its exact result is {lost.value}"
    if lost.amplification == math.inf or not math.isnan(lost.amplification):
        return f"what it is given is too uncertain (its result without rounding is {_number(lost.value)})"
    return f"its result {_number(lost.value)} is beyond the format"


# --- numbers ---------------------------------------------------------------------------------------------------------


def _operands(call: Call) -> list[Tensor]:
    if call.name == "lift_fresh":  # a constant, not declared before
        return []
    # What an operation is about to fill has no value yet.
    filled = {"out", "self"} if call.name in ("copy", "fill", "zero") else {"out"}
    operands = [item for name, item in call.arguments.items() if name not in filled]
    return [x for x in tensors_of(operands) if x.is_floating_point() and x.numel()]


def _relative(shadow: Shadow) -> Array:
    """The bound relative to the value, entry by entry; a value of 0 counts as the largest beside it."""
    e, size = spread(shadow.e, shadow.v.shape), abs(shadow.v)
    size = np.where(size == 0, size.max() if size.size else size, size)
    with np.errstate(all="ignore"):
        ratio = np.where(e == 0, 0.0, e / size)
    return np.where(np.isnan(ratio), math.inf, ratio)


def _worst(shadow: Shadow) -> tuple[int, ...]:
    """Where a result is least certain relative to its size; among equals, where its bound is largest."""
    ratio, e = _relative(shadow), spread(shadow.e, shadow.v.shape)
    place = int(np.where(ratio == ratio.max(), e, -1.0).argmax())
    return _place(place, shadow.v.shape)


def _place(flat: int, shape: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(int(i) for i in np.unravel_index(flat, shape))


def _kind(thing: Any) -> str:
    return f"a tensor of {thing.dtype}" if isinstance(thing, Tensor) else f"{type(thing).__name__}"


def _number(x: float) -> str:
    return "–" if math.isnan(x) else f"{x:.3g}"


def _digits(x: float) -> str:
    return "all" if x == math.inf else "–" if math.isnan(x) else f"{x:.1f}"


def _times(x: float) -> str:
    return "" if math.isnan(x) else f"{x:.3g} x"


def _percent(x: float) -> str:
    return "–" if math.isnan(x) else f"{100 * x:.0f} %"


def plain_data(x: Any) -> Any:
    """Nested data without numbers that JSON lacks."""
    if isinstance(x, float) and not math.isfinite(x):
        return str(x)
    if isinstance(x, Mapping):
        return {key: plain_data(item) for key, item in x.items()}
    return [plain_data(item) for item in x] if isinstance(x, (list, tuple)) else x
