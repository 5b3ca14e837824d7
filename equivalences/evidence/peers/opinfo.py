"""OpInfo: the sample inputs of PyTorch's own tests, as problems of an identity, and the tolerances of these tests."""

from __future__ import annotations

import sys
import unittest
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import lru_cache
from typing import Any, TypeGuard

import numpy as np
import torch
from torch import Tensor

from equivalences.evidence.faults.fault import Fault
from equivalences.evidence.peers import practice
from equivalences.formats import FORMATS
from equivalences.model import Form, Identity, Problem
from equivalences.running import execute
from equivalences.running.forms import function

_OF_LABELS = "input target weight size_average ignore_index reduce reduction label_smoothing"
_WITH_LOGITS = ("nn.functional.binary_cross_entropy_with_logits", "input target weight size_average reduce reduction")
_OF_TARGET = "input target"

# identity -> operator in `op_db` whose function it is, and the names of its arguments.
OPERATORS: dict[str, tuple[str, str]] = {
    **dict.fromkeys(("softmax", "softmax_shift_invariance", "softmax_permutation"), ("softmax", "input dim")),
    "softmin": ("nn.functional.softmin", "input dim"),
    "log_softmax": ("log_softmax", "input dim"),
    **dict.fromkeys(("logsumexp", "logsumexp_shift"), ("logsumexp", "input dim")),
    **dict.fromkeys(
        (
            "cross_entropy", "cross_entropy_reduced", "soft_cross_entropy", "cross_entropy_options",
            "cross_entropy_options_reduced", "cross_entropy_many_rows", "soft_cross_entropy_options",
            "soft_cross_entropy_options_reduced",
        ),
        ("nn.functional.cross_entropy", _OF_LABELS),
    ),
    "sigmoid": ("sigmoid", "input"),
    **dict.fromkeys(("tanh", "tanh_of_sigmoid"), ("tanh", "input")),
    "logsigmoid": ("nn.functional.logsigmoid", "input"),
    "softplus": ("nn.functional.softplus", "input"),
    "hardtanh": ("nn.functional.hardtanh", "input"),
    "relu": ("nn.functional.relu", "input"),
    "leaky_relu": ("nn.functional.leaky_relu", "input"),
    **dict.fromkeys(
        (
            "binary_cross_entropy", "binary_cross_entropy_by_parts", "binary_cross_entropy_soft",
            "binary_cross_entropy_reduced", "binary_cross_entropy_weighted", "binary_cross_entropy_weighted_reduced",
            "binary_cross_entropy_pos_weight", "binary_cross_entropy_pos_weight_reduced",
        ),
        _WITH_LOGITS,
    ),
    **dict.fromkeys(
        ("binary_cross_entropy_of_probabilities", "bernoulli_nll"), ("nn.functional.binary_cross_entropy", _OF_TARGET)
    ),
    **dict.fromkeys(("soft_margin_loss", "soft_margin_loss_reduced"), ("nn.functional.soft_margin_loss", _OF_TARGET)),
    "multilabel_soft_margin_loss": ("nn.functional.multilabel_soft_margin_loss", _OF_TARGET),
    "mean_squared_error": ("nn.functional.mse_loss", _OF_TARGET),
    "linear": ("nn.functional.linear", "input linear_weight linear_bias"),
    **dict.fromkeys(
        (
            "linear_cross_entropy", "linear_cross_entropy_rows", "linear_soft_cross_entropy",
            "linear_cross_entropy_smoothed", "linear_cross_entropy_smoothed_rows",
        ),
        ("nn.functional.linear_cross_entropy", "input linear_weight target"),
    ),
}  # fmt: skip


@contextmanager
def _hypothesis_as_it_was() -> Iterator[None]:
    """Around the import of torch's own test library, which loads a Hypothesis profile of its own, of 10 examples.

    Only in a process that uses Hypothesis, as the tests do; in a command there is nothing to keep.
    """
    hypothesis: Any = sys.modules.get("hypothesis")
    if hypothesis is None:
        yield
        return
    settings = hypothesis.settings
    loaded, dev = settings.get_current_profile_name(), None
    with suppress(hypothesis.errors.InvalidArgument):  # no such profile
        dev = settings.get_profile("dev")
    try:
        yield
    finally:
        if dev is not None:
            settings.register_profile("dev", dev)
        settings.load_profile(loaded)


@lru_cache(maxsize=1)
def _operators() -> dict[str, Any]:
    with _hypothesis_as_it_was(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from torch.testing._internal.common_methods_invocations import op_db
    return {op.name: op for op in op_db if not op.variant_test_name}


def operator(identity: Identity) -> Any:
    return _operators()[OPERATORS[identity.name][0]]


@lru_cache(maxsize=512)
def samples(identity: Identity, fmt: str) -> tuple[Problem, ...]:
    """The problems that the samples of the identity's operator are, as far as the identity can take them."""
    op, parameters, dtype = operator(identity), OPERATORS[identity.name][1], FORMATS[fmt].dtype
    if dtype not in op.dtypes:
        return ()
    torch.manual_seed(0)
    found = []
    for sample in op.sample_inputs("cpu", dtype, requires_grad=False):
        given = dict(zip(parameters.split(), (sample.input, *sample.args), strict=False)) | sample.kwargs
        items = _taken(identity, given)
        if items is not None:
            found.append(Problem(fmt, {name: practice.in_format(item, fmt) for name, item in items.items()}))
    return tuple(found)


def _rows(x: Tensor, dim: int) -> Tensor:
    return x.movedim(dim, -1).reshape(-1, x.shape[dim])


def _fits(target: Tensor | None, axes: Mapping[str, str]) -> TypeGuard[Tensor]:
    """Whether a sample's target is of the kind that the identity has: labels `y` or probabilities `p`."""
    return target is not None and target.is_floating_point() != ("y" in axes)


def _taken(identity: Identity, given: Mapping[str, Any]) -> dict[str, Any] | None:
    """The items of the identity in an operator's arguments; None if the sample has not what the identity needs."""
    axes, x, target = identity.domain.axes, given["input"], given.get("target")
    example = practice.patterns(identity)[0]
    if "x" in axes:
        matrix, bias = given["linear_weight"], given.get("linear_bias")
        if x.dim() != 2 or matrix.dim() != 2 or not x.numel():
            return None
        items = {"x": x, "W": matrix, "b": matrix.new_zeros(len(matrix)) if bias is None else bias}
        if "y" in axes or "p" in axes:
            if not _fits(target, axes):
                return None
            items["y" if "y" in axes else "p"] = target
    elif axes.get("z", axes.get("p")) == "RC":
        if x.dim() == 0 or not x.numel():
            return None
        dim = given.get("dim", 1 if x.dim() > 1 else 0)
        if isinstance(dim, tuple) and len(dim) == 1:
            (dim,) = dim
        if not isinstance(dim, int):
            return None
        items = {"z": _rows(x, dim)}
        if "y" in axes or "p" in axes:
            if not _fits(target, axes):
                return None
            items |= {"y": target.reshape(-1)} if "y" in axes else {"p": _rows(target, dim)}
    else:
        if not x.numel():
            return None
        items = {"z" if "z" in axes else "p": x.reshape(-1)}
        if "t" in axes:
            if target is None:
                return None
            t = target.expand_as(x).reshape(-1)
            # Labels where the identity has labels.
            items["t"] = {"index": (t > 0).to(t), "sign": torch.where(t > 0, 1, -1).to(t)}.get(_labels(identity), t)
    for name in example:
        if name in items or name == "g":
            continue
        if name == "reduction":
            items[name] = given.get(name, "mean")
            if items[name] not in {p["reduction"] for p in practice.patterns(identity)}:
                return None
        elif name == "ignore_index":
            items[name] = given.get(name, -100)
        elif name in ("weight", "pos_weight"):
            items[name] = _weight(given.get(name), x, items, axes[name])
        elif name in given or name == "label_smoothing":
            items[name] = given.get(name, 0.0)
        else:
            items[name] = practice.option(name, practice.patterns(identity))
    kept = items.get("y") != items["ignore_index"] if "ignore_index" in items else torch.tensor(True)
    if not bool(torch.as_tensor(kept).any()):
        return None
    shape = {"": (), "R": next(iter(items.values())).shape[:1]}.get(identity.out, next(iter(items.values())).shape)
    if identity.out == "RK":
        shape = items["x"].shape[0], items["W"].shape[0]
    items["g"] = torch.randn(shape, dtype=torch.float64) if shape else torch.ones((), dtype=torch.float64)
    return {name: _plain(items[name]) for name in example}


def _plain(item: Any) -> Any:
    if not isinstance(item, Tensor):
        return item
    return item.detach().to(torch.float64).numpy() if item.is_floating_point() else item.numpy()


def _labels(identity: Identity) -> str:
    seen = {number for p in practice.patterns(identity) for number in np.ravel(p["t"]).tolist()}
    return "" if not seen <= {-1.0, 0.0, 1.0} else "sign" if -1.0 in seen else "index"


def _weight(weight: Tensor | None, x: Tensor, items: Mapping[str, Any], axes: str) -> Any:
    """A sample's weight for each class ("C", "K"), for each number ("R"), or for all ("")."""
    of_classes = axes in ("C", "K")
    if weight is None:
        return None if of_classes else torch.ones(x.numel() if axes else ())
    if axes == "":
        return weight.reshape(-1)[0]
    return weight if of_classes else weight.expand_as(x).reshape(-1)


@lru_cache(maxsize=512)
def test_case(identity: Identity, fmt: str, name: str) -> Any:
    """The `TestCase` that runs a test of the identity's operator, with its tolerances; None if the test is skipped."""
    with _hypothesis_as_it_was():
        from torch.testing._internal.common_device_type import CPUTestBase
        from torch.testing._internal.common_utils import TestCase

    own = {"precision": TestCase.precision, "rel_tol": TestCase.rel_tol}  # all cases of a device share theirs
    case: Any = type("Case", (CPUTestBase,), own)()

    def test(case: Any) -> None: ...

    dtype = FORMATS[fmt].dtype
    for decorate in operator(identity).get_decorators(*name.split("."), case.device_type, dtype, {}):
        test = decorate(test)
    try:
        test(case)  # many a decorator skips only once the test is called
    except unittest.SkipTest:
        return None
    case._apply_precision_override_for_test(test, {"dtype": dtype})
    return None if getattr(test, "__unittest_expecting_failure__", False) else case


def notices(fault: Fault, fmt: str) -> bool | None:
    """Whether PyTorch's samples and tolerances notice the fault in a format; None where there is nothing to run."""
    if fault.of.name not in OPERATORS or not (problems := samples(fault.of, fmt)):
        return None
    return any(_noticed(fault.of, fault.broken, problem) for problem in problems)


def _noticed(identity: Identity, broken: Form, problem: Problem) -> bool:
    try:
        got = practice.run(identity, broken, problem)
    except Exception:
        return True
    case = test_case(identity, problem.format, "TestCommon.test_numpy_ref")
    if case and practice.differs(case.assertEqual, got, {"value": practice.reference(identity, problem)["value"]}):
        return True
    strided = problem.format == "float32" and "strided" in (broken.layouts or identity.domain.layouts)
    case = test_case(identity, problem.format, "TestCommon.test_noncontiguous_samples") if strided else None
    if case and practice.differs(case.assertEqual, practice.run(identity, broken, problem, "strided"), got):
        return True
    checked = problem.format == "float64" and identity.wrt
    case = test_case(identity, problem.format, "TestBwdGradients.test_fn_grad") if checked else None
    return bool(case) and not _gradient_holds(identity, broken, problem)


def _gradient_holds(identity: Identity, broken: Form, problem: Problem) -> bool:
    items, declared = execute.arguments(identity, problem, "contiguous"), operator(identity)
    items.pop("g")
    # Fresh tensors: gradcheck refuses a stride of 0 even where the size is 1.
    leaves = {name: torch.zeros(problem[name].shape, dtype=torch.float64).copy_(items[name]) for name in identity.wrt}
    for leaf in leaves.values():
        leaf.requires_grad_()
    call = function(broken, tuple(items))

    def of_tensors(*tensors: Tensor) -> Tensor:
        value: Tensor = call(**items | dict(zip(leaves, tensors, strict=True)))
        return value

    held: bool = torch.autograd.gradcheck(
        of_tensors, tuple(leaves.values()), raise_exception=False, check_undefined_grad=False,
        nondet_tol=declared.gradcheck_nondet_tol, fast_mode=declared.gradcheck_fast_mode is not False,
    )  # fmt: skip
    return held
