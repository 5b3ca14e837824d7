"""A form as a function: eager or compiled, and whether this torch has what it needs."""

from __future__ import annotations

import ast
import inspect
import math
import re
import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import lru_cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from equivalences.model import Form

VARIANTS = 512  # of one piece of compiled code: shapes x layouts x formats x options
NAMES = {"torch": torch, "F": F, "nn": nn, "math": math}


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
        space: dict[str, Any] = dict(NAMES)
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
