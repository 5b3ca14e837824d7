"""The state of the process that numbers depend on: put into a known one for `check`, watched, and put back.

What the person has set (a default dtype, anomaly detection, flushed denormals ...) must not change what is judged, and
what an implementation sets must not reach the judge, nor the next implementation.
"""

from __future__ import annotations

import ast
import random
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FunctionType
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

KEPT = object()  # as the person has it
PATCHABLE = (  # Python functions of torch.nn.functional that people replace by their own
    "cross_entropy", "nll_loss", "log_softmax", "softmax", "binary_cross_entropy_with_logits", "binary_cross_entropy",
    "kl_div", "soft_margin_loss", "multilabel_soft_margin_loss", "multi_margin_loss", "linear_cross_entropy",
)  # fmt: skip
NUMPY_ERRORS = {"divide": "warn", "over": "warn", "under": "ignore", "invalid": "warn"}


@dataclass(frozen=True)
class Setting:
    """One setting of the process: how it is read and set, and what it is while `check` runs.

    quiet  a change is undone, and not told: torch.compile makes it, not its user.
    """

    name: str
    get: Callable[[], Any]
    put: Callable[[Any], Any]
    known: Any = KEPT
    quiet: bool = False


def _flushes() -> bool:
    smallest = np.full(1, 5e-324)
    return bool((smallest * np.ones(1) == 0)[0])


def _matmul_precision() -> str:
    try:
        return torch.get_float32_matmul_precision()
    except RuntimeError:  # it was set by another interface, which this one refuses to read
        return ""


def _put_precision(name: str) -> None:
    if name:
        torch.set_float32_matmul_precision(name)


def _put_filters(filters: list[Any]) -> None:
    warnings.resetwarnings()  # tells Python that they change
    warnings.filters[:] = filters  # type: ignore[index]


def functions() -> dict[str, Any]:
    """PyTorch's functions as they are at the moment, by name."""
    return {name: getattr(F, name) for name in PATCHABLE if hasattr(F, name)}


def put_functions(given: Mapping[str, Any]) -> None:
    """Sets these functions of torch.nn.functional."""
    for name, function in given.items():
        setattr(F, name, function)


def genuine() -> dict[str, Any]:
    """PyTorch's own functions, whatever stands in their place: those that were replaced are made from its source."""
    here, path = functions(), F.__file__
    lost = [
        name for name, each in here.items() if not isinstance(each, FunctionType) or each.__code__.co_filename != path
    ]
    if lost and path:
        for node in ast.parse(Path(path).read_text(encoding="utf-8")).body:
            if isinstance(node, ast.FunctionDef) and node.name in lost:
                space = dict(vars(F))
                exec(compile(ast.Module([node], []), path, "exec"), space)
                here[node.name] = space[node.name]
    return here


SETTINGS = (
    Setting("the default dtype", torch.get_default_dtype, torch.set_default_dtype, torch.float32),
    Setting(
        "the default device",
        torch.get_default_device,
        lambda device: torch.set_default_device(None if device.type == "cpu" else device),
        torch.device("cpu"),
    ),
    Setting("whether gradients are recorded", torch.is_grad_enabled, torch.set_grad_enabled, True),
    Setting(
        "anomaly detection",
        lambda: (torch.is_anomaly_enabled(), torch.is_anomaly_check_nan_enabled()),
        lambda it: torch.autograd.set_detect_anomaly(*it),
        (False, True),
    ),
    Setting("whether denormals are flushed", _flushes, torch.set_flush_denormal, False),
    *(
        Setting(
            f"autocast on {kind}",
            lambda kind=kind: torch.is_autocast_enabled(kind),  # type: ignore[misc]
            lambda it, kind=kind: torch.set_autocast_enabled(kind, it),  # type: ignore[misc]
            False,
        )
        for kind in ("cpu", "cuda")
    ),
    Setting("the number of threads", torch.get_num_threads, torch.set_num_threads),
    Setting(
        "deterministic algorithms",
        lambda: (torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()),
        lambda it: torch.use_deterministic_algorithms(it[0], warn_only=it[1]),
    ),
    Setting("the precision of float32 products", _matmul_precision, _put_precision),
    Setting("NumPy's errors", np.geterr, lambda it: np.seterr(**it), NUMPY_ERRORS),
    Setting("functions of torch.nn.functional", functions, put_functions),
    Setting(
        "the validation of distributions",
        lambda: torch.distributions.Distribution._validate_args,
        torch.distributions.Distribution.set_default_validate_args,
        quiet=True,
    ),
)
SEED, FILTERS = "the seed of PyTorch's generator", "the filters of warnings"


@dataclass(frozen=True)
class Snapshot:
    """The settings at one moment; the generator's state, which draws change too, is no setting, but its seed is."""

    settings: Mapping[str, Any]
    seed: int
    generator: torch.Tensor
    filters: list[Any]
    modules: int

    def undo(self) -> tuple[str, ...]:
        """Puts back what has changed since, and names it."""
        changed = []
        for each in SETTINGS:
            if each.get() != self.settings[each.name]:
                each.put(self.settings[each.name])
                changed += [] if each.quiet else [each.name]
        if torch.initial_seed() != self.seed:
            torch.set_rng_state(self.generator)
            changed.append(SEED)
        if list(warnings.filters) != self.filters:
            _put_filters(self.filters)
            if len(sys.modules) == self.modules:  # else a module that was imported may have done it
                changed.append(FILTERS)
        return tuple(changed)


def snapshot() -> Snapshot:
    """The settings as they are now."""
    settings = {each.name: each.get() for each in SETTINGS}
    return Snapshot(settings, torch.initial_seed(), torch.get_rng_state(), list(warnings.filters), len(sys.modules))


@contextmanager
def known() -> Iterator[dict[str, Any]]:
    """Runs under known settings, and puts the person's back, generators too; gives the functions of theirs.

    torch.nn.functional holds PyTorch's own functions meanwhile; an implementation is to run with the person's.
    """
    with ExitStack() as stack:
        if torch.is_inference_mode_enabled():
            stack.enter_context(torch.inference_mode(False))
        before, theirs = snapshot(), functions()
        stack.callback(torch.set_rng_state, before.generator)
        stack.callback(np.random.set_state, np.random.get_state())
        stack.callback(random.setstate, random.getstate())
        stack.callback(before.undo)
        for each in SETTINGS:
            if each.known is not KEPT and each.get() != each.known:
                each.put(each.known)
        if torch.get_default_device().type != "cpu":  # by `with torch.device(...)`
            stack.enter_context(torch.device("cpu"))
        put_functions(genuine())
        yield theirs
