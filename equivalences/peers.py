"""What two common practices say of a planted fault: `assert_close` on random inputs, and PyTorch's own OpInfo samples.

Both get the broken code itself, and the identity's reference to compare it with in the same format.

assert_close  `torch.testing.assert_close` with its default tolerances: one batch of 64 rows, 10 classes (2 where the
              identity has two), inputs from `randn`, options as a tutorial sets them; value, and gradient under a
              random upstream gradient (1 for a scalar loss).
OpInfo        the sample inputs in `op_db` of the operator that the identity is about, with the tolerances of the
              `TestCase` that PyTorch's tests run in (an operator's own wider overrides are not applied).  As
              `test_numpy_ref`, but in every format of the operator: values against the reference.  As
              `test_noncontiguous_samples`: float32, value and gradient, strided against contiguous.  As
              `test_fn_grad`: `gradcheck` in float64, in its fast mode (their default).  Of a sample, the identity
              takes the inputs and options that it has; samples that it cannot take (another reduction, no numbers)
              are left out.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import lru_cache
from typing import Any, TypeGuard

import hypothesis
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from equivalences import execute
from equivalences.formats import FORMATS, truncate
from equivalences.model import Array, Fault, Form, Identity, Problem

ROWS, COLUMNS = 64, 10

# Options as a tutorial sets them.
_OPTIONS: dict[str, Any] = {
    "reduction": "mean", "label_smoothing": 0.1, "ignore_index": -100, "slope": 0.01, "drop": 0.5, "seed": 0,
    "lr": 0.1, "momentum": 0.9, "dampening": 0.0, "nesterov": False, "first": False, "weight_decay": 0.01,
    "maximize": False, "step": 1, "beta1": 0.9, "beta2": 0.999, "eps": 1e-8, "batch": 10, "d": 784, "h": 32, "k": 2,
}  # fmt: skip


@lru_cache(maxsize=256)
def _patterns(identity: Identity) -> tuple[Problem, ...]:
    return tuple(identity.domain.edges("float32"))


def _sizes(identity: Identity) -> dict[str, int]:
    """The size of each axis: 64 rows, 10 of everything else, or what every edge problem has."""
    seen: dict[str, set[int]] = {}
    for problem in _patterns(identity):
        for name, axes in identity.domain.axes.items():
            if isinstance(problem.items.get(name), np.ndarray):
                for axis, size in zip(axes, problem[name].shape, strict=True):
                    seen.setdefault(axis, set()).add(size)
    return {
        axis: ROWS if axis == "R" else next(iter(found)) if len(found) == 1 else COLUMNS for axis, found in seen.items()
    }


@lru_cache(maxsize=512)
def practice(identity: Identity, fmt: str) -> Problem:
    """The inputs of a hand-written test: `randn` and the like, the same for every fault of an identity."""
    torch.manual_seed(0)
    sizes, domain = _sizes(identity), identity.domain
    patterns = _patterns(identity)
    items: dict[str, Any] = {}
    for name, example in patterns[0].items.items():
        axes = domain.axes.get(name, "")
        if name == "weight" and any(isinstance(p["weight"], np.ndarray) for p in patterns):
            axes = domain.axes["weight"]
        elif not isinstance(example, np.ndarray):
            items[name] = _option(name, patterns)
            continue
        shape = tuple(sizes[axis] for axis in axes)
        everything = np.concatenate([np.ravel(p[name]) for p in patterns if isinstance(p[name], np.ndarray)])
        items[name] = _numbers(name, axes, shape, everything, sizes)
    if "t" in items and "y" in items:
        items["t"] = items["y"].astype(float)
    if "ignore_index" in items:
        items["y"][::10] = items["ignore_index"]
    return Problem(fmt, {name: _in_format(item, fmt) for name, item in items.items()})


def _option(name: str, patterns: tuple[Problem, ...]) -> Any:
    """An option as a tutorial sets it, if the identity allows that (a loss of each row has no reduction)."""
    allowed = {problem[name] for problem in patterns if isinstance(problem[name], str)}
    return _OPTIONS[name] if not allowed or _OPTIONS[name] in allowed else min(allowed)


def _numbers(name: str, axes: str, shape: tuple[int, ...], seen: Array, sizes: Mapping[str, int]) -> Array:
    if seen.dtype.kind != "f":
        classes = next(sizes[axis] for axis in "MKC" if axis in sizes)
        return torch.randint(classes, shape).numpy()
    if name == "p":
        return (F.softmax(torch.randn(shape), 1) if len(axes) == 2 else torch.rand(shape)).double().numpy()
    if name == "g":
        return (torch.randn(shape) if axes else torch.ones(())).double().numpy()
    if name == "t" and set(seen) <= {-1.0, 0.0, 1.0}:
        signs = torch.randint(2, shape).double().numpy()
        return signs if 0.0 in seen else 2 * signs - 1
    if seen.min() >= 0:  # probabilities, weights, second moments
        return (torch.rand(shape) + 0.5 * (name == "top")).double().numpy()
    return torch.randn(shape).double().numpy()


def _in_format(item: Any, fmt: str) -> Any:
    return truncate(item, FORMATS[fmt]) if isinstance(item, np.ndarray) and item.dtype.kind == "f" else item


@lru_cache(maxsize=2048)
def _reference(identity: Identity, problem: Problem) -> dict[str, Tensor]:
    return _run(identity, identity.reference, problem)


def _run(identity: Identity, form: Form, problem: Problem, layout: str = "contiguous") -> dict[str, Tensor]:
    dtype = FORMATS[problem.format].dtype
    got = execute.run(identity, form, problem, layout=layout, track=False).got
    return {name: torch.tensor(numbers).to(dtype) for name, numbers in got.items()}


def _differs(compare: Callable[[Tensor, Tensor], None], one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> bool:
    try:
        for name, expected in other.items():
            compare(one[name], expected)
    except AssertionError:
        return True
    return False


def assert_close(fault: Fault, fmt: str) -> bool | None:
    """Whether `torch.testing.assert_close` notices the fault on random inputs (a fault that raises is noticed).

    None where the reference gives nan, as Adam does once float16 has rounded its epsilon to zero.
    """
    problem = practice(fault.of, fmt)
    expected = _reference(fault.of, problem)
    if any(bool(numbers.isnan().any()) for numbers in expected.values()):
        return None
    try:
        got = _run(fault.of, fault.broken, problem)
    except Exception:
        return True
    return _differs(torch.testing.assert_close, got, expected)


# --- OpInfo ----------------------------------------------------------------------------------------------------------

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
    """Around the import of torch's own test library, which loads a Hypothesis profile of its own, of 10 examples."""
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


@lru_cache(maxsize=512)
def samples(identity: Identity, fmt: str) -> tuple[Problem, ...]:
    """The problems that the samples of the identity's operator are, as far as the identity can take them."""
    name, parameters = OPERATORS[identity.name]
    op, dtype = _operators()[name], FORMATS[fmt].dtype
    if dtype not in op.dtypes:
        return ()
    torch.manual_seed(0)
    found = []
    for sample in op.sample_inputs("cpu", dtype, requires_grad=False):
        given = dict(zip(parameters.split(), (sample.input, *sample.args), strict=False)) | sample.kwargs
        items = _taken(identity, given)
        if items is not None:
            found.append(Problem(fmt, {name: _in_format(item, fmt) for name, item in items.items()}))
    return tuple(found)


def _rows(x: Tensor, dim: int) -> Tensor:
    return x.movedim(dim, -1).reshape(-1, x.shape[dim])


def _fits(target: Tensor | None, axes: Mapping[str, str]) -> TypeGuard[Tensor]:
    """Whether a sample's target is of the kind that the identity has: labels `y` or probabilities `p`."""
    return target is not None and target.is_floating_point() != ("y" in axes)


def _taken(identity: Identity, given: Mapping[str, Any]) -> dict[str, Any] | None:
    """The items of the identity in an operator's arguments; None if the sample has not what the identity needs."""
    axes, x, target = identity.domain.axes, given["input"], given.get("target")
    example = _patterns(identity)[0]
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
            if items[name] not in {p["reduction"] for p in _patterns(identity)}:
                return None
        elif name == "ignore_index":
            items[name] = given.get(name, -100)
        elif name in ("weight", "pos_weight"):
            items[name] = _weight(given.get(name), x, items, axes[name])
        elif name in given or name == "label_smoothing":
            items[name] = given.get(name, 0.0)
        else:
            items[name] = _option(name, _patterns(identity))
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
    seen = {number for p in _patterns(identity) for number in np.ravel(p["t"]).tolist()}
    return "" if not seen <= {-1.0, 0.0, 1.0} else "sign" if -1.0 in seen else "index"


def _weight(weight: Tensor | None, x: Tensor, items: Mapping[str, Any], axes: str) -> Any:
    """A sample's weight for each class ("C", "K"), for each number ("R"), or for all ("")."""
    of_classes = axes in ("C", "K")
    if weight is None:
        return None if of_classes else torch.ones(x.numel() if axes else ())
    if axes == "":
        return weight.reshape(-1)[0]
    return weight if of_classes else weight.expand_as(x).reshape(-1)


@lru_cache(maxsize=1)
def _test_case() -> Callable[[Tensor, Tensor], None]:
    with _hypothesis_as_it_was():
        from torch.testing._internal.common_utils import TestCase

    case = TestCase()
    return case.assertEqual


def opinfo(fault: Fault, fmt: str) -> bool | None:
    """Whether PyTorch's samples and tolerances notice the fault in a format; None where there is nothing to run."""
    identity, broken = fault.of, fault.broken
    if identity.name not in OPERATORS or not (problems := samples(identity, fmt)):
        return None
    equal = _test_case()
    return any(_noticed(identity, broken, problem, equal) for problem in problems)


def _noticed(identity: Identity, broken: Form, problem: Problem, equal: Callable[[Tensor, Tensor], None]) -> bool:
    try:
        got = _run(identity, broken, problem)
    except Exception:
        return True
    if _differs(equal, {"value": got["value"]}, {"value": _reference(identity, problem)["value"]}):
        return True
    strided = problem.format == "float32" and "strided" in (broken.layouts or identity.domain.layouts)
    if strided and _differs(equal, _run(identity, broken, problem, "strided"), got):
        return True
    return problem.format == "float64" and bool(identity.wrt) and not _gradient_holds(identity, broken, problem)


def _gradient_holds(identity: Identity, broken: Form, problem: Problem) -> bool:
    items = execute.arguments(identity, problem, "contiguous")
    items.pop("g")
    # Fresh tensors: gradcheck refuses a stride of 0 even where the size is 1.
    leaves = {name: torch.zeros(problem[name].shape, dtype=torch.float64).copy_(items[name]) for name in identity.wrt}
    for leaf in leaves.values():
        leaf.requires_grad_()
    call = execute.function(broken, tuple(items))

    def function(*tensors: Tensor) -> Tensor:
        value: Tensor = call(**items | dict(zip(leaves, tensors, strict=True)))
        return value

    held: bool = torch.autograd.gradcheck(
        function, tuple(leaves.values()), raise_exception=False, check_undefined_grad=False, fast_mode=True
    )
    return held


PEERS: dict[str, Callable[[Fault, str], bool | None]] = {"assert_close": assert_close, "OpInfo": opinfo}


def verdicts(fault: Fault) -> dict[str, dict[str, bool | None]]:
    """Of each peer: format -> whether it notices the fault (None: nothing to run)."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return {name: {fmt: notices(fault, fmt) for fmt in fault.formats} for name, notices in PEERS.items()}
