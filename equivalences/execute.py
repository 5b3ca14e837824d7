"""Problems to tensors, forms to functions, and one run of a form: eager or compiled, in a layout, on a device.

Layouts and forms are snippets of torch code, so that a report can print exactly what ran.
"""

from __future__ import annotations

import ast
import inspect
import math
import re
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import cached_property, lru_cache
from types import CodeType
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from equivalences import formats
from equivalences.model import MODES as MODES
from equivalences.model import Array, Form, Identity, Problem
from equivalences.rounding import Rule, Step, Tracker
from equivalences.rounding.arrays import as_tensor

VARIANTS = 512  # of one piece of compiled code: shapes x layouts x formats x options


@dataclass(frozen=True)
class Layout:
    """How rows x classes stand in memory: an expression in ``x`` for each kind of axes, and the class dimension."""

    name: str
    what: str
    rows_classes: str = "x"  # x has shape (R, C)
    rows: str = "x"  # x has shape (R,)
    other: str = "x"
    dim: int = 1
    gaps: bool = False  # between the numbers
    back: Callable[[Tensor, int], Tensor] = lambda x, rows: x  # an output's rows-classes tensor to (R, C)


def _divisor(rows: int) -> int:
    """The largest divisor of `rows` that is at most its square root."""
    return next(d for d in range(math.isqrt(max(rows, 1)), 0, -1) if rows % d == 0)


LAYOUTS = {
    layout.name: layout
    for layout in (
        Layout("contiguous", "rows x classes, contiguous"),
        Layout(
            "strided",
            "every second number of a larger storage",
            *3 * ("torch.stack((x, x), -1)[..., 0]",),
            gaps=True,
        ),
        Layout(
            "transposed",
            "rows x classes, the rows adjacent in memory",
            rows_classes="x.mT.contiguous().mT",
            other="x.mT.contiguous().mT if x.dim() > 1 else x",
        ),
        Layout(
            "offset",
            "from the second number of a storage on, so that no vector is aligned",
            *3 * ("torch.cat((x.new_zeros(1), x.reshape(-1)))[1:].reshape(x.shape)",),
        ),
        Layout(
            "expanded",
            "one row (or one weight) for all, with stride 0, wherever they are equal",
            *3 * ("x[:1].expand_as(x) if x.dim() and (x == x[:1]).all() else x",),
        ),
        Layout(
            "movedim",
            "(N, C, d), the classes adjacent in memory",
            rows_classes="x.reshape({a}, -1, x.shape[1]).movedim(-1, 1)",
            rows="x.reshape({a}, -1)",
            back=lambda x, rows: x.mT.reshape(rows, -1),
        ),
        Layout(
            "inner",
            "(N, C, d): the class dimension is not the last",
            rows_classes="x.reshape({a}, -1, x.shape[1]).mT.contiguous()",
            rows="x.reshape({a}, -1)",
            back=lambda x, rows: x.mT.reshape(rows, -1),
        ),
        Layout(
            "first",
            "(C, N): the class dimension is the first",
            rows_classes="x.t().contiguous()",
            dim=0,
            back=lambda x, rows: x.t(),
        ),
        Layout(
            "unbatched",
            "(C,): one row without a batch dimension",
            rows_classes="x[0]",
            rows="x[0]",
            dim=0,
            back=lambda x, rows: x[None],
        ),
    )
}


def rows_of(identity: Identity, problem: Problem) -> int:
    """The number of rows of a problem (1 if nothing in it has rows)."""
    for name, axes in identity.domain.axes.items():
        if axes.startswith("R") and name in problem.items:
            return int(problem[name].shape[0])
    return 1


def applies(identity: Identity, problem: Problem, layout: str) -> bool:
    """Whether a problem can be laid out so: "unbatched" takes a single row, "expanded" several equal ones."""
    if layout == "expanded":
        first = next(iter(problem.items.values()))
        return len(first) > 1 and bool((first == first[:1]).all())
    return layout != "unbatched" or rows_of(identity, problem) == 1


def layout_code(identity: Identity, problem: Problem, layout: Layout, name: str) -> str:
    """The expression that lays out item `name`, in terms of ``x``."""
    axes = identity.out if name == "g" else identity.domain.axes.get(name, "")
    code = {"RC": layout.rows_classes, "R": layout.rows, "": "x"}.get(axes, layout.other)
    return code.replace("{a}", str(_divisor(rows_of(identity, problem)))) if "{a}" in code else code


_NAMES = {"torch": torch, "F": F, "nn": nn, "math": math}


@lru_cache(maxsize=4096)
def _parsed(expression: str) -> CodeType:
    return compile(expression, "<layout>", "eval")


def arguments(
    identity: Identity, problem: Problem, layout: str, device: str = "cpu", fmt: str | None = None
) -> dict[str, Any]:
    """The items of a problem as a form takes them: tensors in their layout on the device, options as they are.

    Real data is converted to `fmt` (default: the problem's own format), which must represent it exactly.
    """
    dtype = formats.FORMATS[fmt or problem.format].dtype
    plan = LAYOUTS[layout]
    taken: dict[str, Any] = {}
    for name, item in problem.items.items():
        if not isinstance(item, np.ndarray):
            taken[name] = item
            continue
        tensor = torch.tensor(item)
        if tensor.is_floating_point():
            tensor = tensor.to(dtype)
        code = layout_code(identity, problem, plan, name)
        with torch.no_grad():
            laid = tensor.to(device) if code == "x" else eval(_parsed(code), {"torch": torch, "x": tensor.to(device)})
        taken[name] = laid.detach()
    taken["dim"] = plan.dim
    return taken


def function_source(form: Form, names: tuple[str, ...]) -> str:
    """The source of the function that an expression form stands for."""
    assert isinstance(form.code, str)
    body = ast.parse(inspect.cleandoc(form.code)).body
    last = body[-1]
    if not isinstance(last, ast.Expr):
        raise ValueError(f"the last line of form {form.label!r} is not an expression")
    lines = [ast.unparse(node) for node in body[:-1]] + [f"return {ast.unparse(last.value)}"]
    text = "\n".join(lines).replace("\n", "\n    ")
    return f"def form({', '.join(names)}):\n    {text}\n"


@lru_cache(maxsize=4096)
def function(form: Form, names: tuple[str, ...], variant: tuple[str, ...] = ()) -> Callable[..., Any]:
    """The form as a function of keyword arguments `names`; a new code object for each `variant`."""
    if isinstance(form.code, str):
        space: dict[str, Any] = dict(_NAMES)
        exec(compile(function_source(form, names), f"<form {form.label} {variant}>", "exec"), space)
        made: Callable[..., Any] = space["form"]
        return made
    code = form.code
    parameters = inspect.signature(code).parameters
    if any(p.kind is p.VAR_KEYWORD for p in parameters.values()):
        return code
    wanted = [name for name in names if name in parameters]
    return lambda **items: code(**{name: items[name] for name in wanted})


@lru_cache(maxsize=4096)
def compiled(form: Form, names: tuple[str, ...], variant: tuple[str, ...]) -> Callable[..., Any]:
    """The form as compiled code for one static shape; built anew for each `variant`."""
    return torch.compile(function(form, names, variant), dynamic=False)


def recompiling() -> AbstractContextManager[None]:
    """Compiled code is built for as many shapes and options as it takes: past its limit torch would run it eagerly.

    Past ours it raises torch._dynamo.exc.FailOnRecompileLimitHit.
    """
    from torch._dynamo import config

    limits: dict[str, Any] = dict.fromkeys(("recompile_limit", "accumulated_recompile_limit"), VARIANTS)
    patched: AbstractContextManager[None] = config.patch(**limits, fail_on_recompile_limit_hit=True)
    return patched


@contextmanager
def _validating(on: bool) -> Iterator[None]:
    """Distributions check what they are given, or do not."""
    distribution = torch.distributions.Distribution
    before = distribution._validate_args
    distribution.set_default_validate_args(on)
    try:
        yield
    finally:
        distribution.set_default_validate_args(before)


@contextmanager
def running(mode: str) -> Iterator[None]:
    """Around everything that is run, or compiled.

    torch.compile switches the validation of distributions off for the whole process, eager code included, and for good
    (pytorch/pytorch#185438): here compiled code does without, eager code has it, and on leaving it is as before.
    The compiler's warnings, of deprecated parts of its own, are no concern of the form's.
    """
    with _validating(mode == "eager"):
        if mode == "eager":
            yield
            return
        with warnings.catch_warnings(), recompiling():
            warnings.simplefilter("ignore")
            yield


def torch_version() -> str:
    """The version of torch without its build tag ("2.14.1")."""
    return str(torch.__version__).partition("+")[0]


def reached(release: str) -> bool:
    """Whether this torch is the release ("2.14") or a later one."""
    mine, other = (tuple(int(part) for part in re.findall(r"\d+", name)[:3]) for name in (torch_version(), release))
    return mine >= other


def exists(form: Form) -> bool:
    """Whether this torch has what the form needs, and means by it what the form claims."""
    if (form.since and not reached(form.since)) or (form.until and reached(form.until)):
        return False
    thing: Any = torch
    for part in filter(None, form.needs.split(".")):
        if not hasattr(thing, part):
            return False
        thing = getattr(thing, part)
    return True


@dataclass(frozen=True)
class Outcome:
    """What one run gave, as float64 arrays in canonical axes: quantity ("value", "gradient z") -> numbers.

    `dtypes` are those of the results themselves; `exact` and `bound` are the running analysis' value and error bound,
    `operations` the ATen operations that it followed (empty for an untracked run).
    """

    got: Mapping[str, Array]
    dtypes: Mapping[str, torch.dtype]
    exact: Mapping[str, Array]
    bound: Mapping[str, Array]
    operations: frozenset[str] = frozenset()
    steps: tuple[Step, ...] = ()

    @cached_property
    def excess(self) -> Step | None:
        """The first recorded step whose own result lies outside its bound; None if none does."""
        return next((step for step in self.steps if step.excessive()), None)


def canonical(identity: Identity, layout: Layout, rows: int, axes: str, tensor: Tensor) -> Array:
    x = tensor.detach().to("cpu", torch.float64)
    if axes == "RC":
        x = layout.back(x, rows)
    elif axes == "R":
        x = x.reshape(rows)
    return x.numpy()


def run(
    identity: Identity,
    form: Form,
    problem: Problem,
    *,
    layout: str = "contiguous",
    device: str = "cpu",
    mode: str = "eager",
    fmt: str | None = None,
    track: bool = True,
    held: str = "",
    as_is: Mapping[str, Rule] | None = None,
    history: bool = False,
) -> Outcome:
    """Runs a form on a problem: value, and gradient under the upstream gradient ``g`` if the identity judges one.

    `track` follows the run with the error analysis (eager only: compiled code cannot be traced); `held` is the mode
    that its bounds are for.
    """
    plan, rows = LAYOUTS[layout], rows_of(identity, problem)
    items = arguments(identity, problem, layout, device, fmt)
    upstream = items.pop("g", None) if identity.wrt else None
    names = tuple(items)
    leaves = {name: items[name].requires_grad_() for name in identity.wrt}
    if mode == "compiled":
        with running(mode):
            call = compiled(form, names, (fmt or problem.format, layout, device))
    else:
        call = function(form, names)
    tracker = Tracker(device=device, mode=held or mode, as_is=as_is or {}, history=history) if track else None

    def both() -> dict[str, Tensor]:
        value = call(**items)
        found = {"value": value}
        if upstream is not None:
            if upstream.shape != value.shape:
                raise ValueError(f"the form returned shape {tuple(value.shape)}, not {tuple(upstream.shape)}")
            found |= {
                f"gradient {name}": gradient
                for name, gradient in zip(
                    leaves, torch.autograd.grad(value, list(leaves.values()), upstream.to(value.dtype)), strict=True
                )
            }
        return found

    if tracker is None:
        with running(mode):
            results = both()
    else:
        for item in (*items.values(), upstream):
            if isinstance(item, Tensor):
                tracker.declare(item)
        items = {name: tracker.coefficient(item) if type(item) is float else item for name, item in items.items()}
        from torch import _dynamo  # noqa: F401  # functorch loads it when first used; that computes: not under the tracker

        with tracker:
            results = both()
    axes = {"value": identity.out} | {f"gradient {name}": identity.domain.axes[name] for name in leaves}

    def laid_back(quantity: str, tensor: Tensor) -> Array:
        return canonical(identity, plan, rows, axes[quantity], tensor)

    got = {quantity: laid_back(quantity, tensor) for quantity, tensor in results.items()}
    dtypes = {quantity: tensor.dtype for quantity, tensor in results.items()}
    if tracker is None:
        return Outcome(got, dtypes, {}, {})
    shadows = {quantity: tracker.shadow(tensor) for quantity, tensor in results.items()}
    return Outcome(
        got,
        dtypes,
        {quantity: laid_back(quantity, as_tensor(shadow.v)) for quantity, shadow in shadows.items()},
        {quantity: laid_back(quantity, as_tensor(shadow.e)) for quantity, shadow in shadows.items()},
        frozenset(tracker.operations),
        tuple(tracker.steps),
    )
