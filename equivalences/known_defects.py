"""Known defects of PyTorch: data.  Each names the operation, what it really does, and a witness that must still fail.

`as_is` is the operation's rule as the kernel behaves, so that the gate stays sharp beside a defect: an error beyond
even that is a failure.  An entry whose witness no longer fails is to be deleted (tests/test_known_defects.py says so).
"""

from __future__ import annotations

import math
from functools import reduce
from typing import Any

import numpy as np
import torch
from torch import Tensor

from equivalences.model import KnownDefect, Problem
from equivalences.rounding.arithmetic import rounded
from equivalences.rounding.assumptions import cascade_power
from equivalences.rounding.elementary import CLOSE, add, mul, neg, one
from equivalences.rounding.fused import log_of_sum, nll_loss
from equivalences.rounding.tracker import RULES, Call, Shadow


def _log_softmax_in_storage(call: Call) -> Shadow:
    """Along the last dimension, the sum of exponentials and its logarithm are rounded to the 16-bit format."""
    dim = call.args[1] % call.out.dim()
    if dim != call.out.dim() - 1:
        shadow = RULES["_log_softmax"](call)
        assert isinstance(shadow, Shadow)
        return shadow
    x = call.shadow(call.args[0])
    row = log_of_sum(call, x, dim, call.format)
    return rounded(call, -row.gap - row.log, x.e + row.moved + call.arithmetic.u * row.gap + row.log_e, underflow=False)


def _softmax_rounds_exponentials(call: Call) -> Shadow:
    """Along a dimension that is not the last, the scalar tail stores exp(x - max) in the 16-bit format, then divides."""
    shadow = RULES["_softmax"](call)
    assert isinstance(shadow, Shadow)
    if call.args[1] % call.out.dim() == call.out.dim() - 1:
        return shadow
    u, eta = call.format.u, call.format.eta
    return Shadow(shadow.v, shadow.e + (1 + u) * (u * (shadow.v + shadow.e) + eta))


def _sigmoid_backward_in_storage(call: Call) -> Shadow:
    """grad * (1 - y) * y with every step rounded to float16; in bfloat16 the same kernel computes in float32."""
    g, y = call.shadow(call.args[0]), call.shadow(call.args[1])
    return mul(call, mul(call, g, add(call, one(), neg(y))), y)


def _clamp_moves_its_input(call: Call) -> Shadow:
    """What is clamped was never meant to be: it counts as an error, of the gradient's mask as well."""
    x, clamped = call.shadow(call.args[0]), RULES["clamp"](call)
    moved = Shadow(x.v, x.e + clamped.e + (clamped.v - x.v).abs())
    call.tracker.write(call.args[0], moved)
    return moved


def _bce_backward_with_floor(call: Call) -> Shadow:
    """g (x - t) / max(x (1 - x), 1e-12), whose floor float16 rounds to zero: then 0 / 0 where x = t is 0 or 1."""
    g, x, t = (call.shadow(a) for a in call.args[:3])
    shadow = RULES["binary_cross_entropy_backward"](call)
    assert isinstance(shadow, Shadow)
    floor = float(torch.tensor(1e-12, dtype=call.format.dtype))
    ends = [(x.v + e).clamp(0.0, 1.0) for e in (-x.e, x.e)]
    below = torch.minimum(*(end * (1 - end) for end in ends))
    gap = torch.maximum(*((end - t.v).abs() for end in ends)) + t.e
    u = call.format.u
    reach = (g.v.abs() + g.e) * gap / below.clamp_min(floor) * (1 + 8 * u)
    if call.arg(3, "weight") is not None:
        weight = call.shadow(call.arg(3, "weight"))
        reach = reach * (weight.v.abs() + weight.e) * (1 + u)
    if call.arg(4, "reduction", 1) == 1:
        reach = reach / x.v.numel() * (1 + 2 * u)
    reach = (shadow.v.abs() + reach) * (1 + CLOSE) + 2 * call.format.eta
    reach = torch.where(below > 2 * floor, 0.0, reach)
    return Shadow(shadow.v, torch.maximum(shadow.e, reach))


def _fused_ignores_strides(call: Call) -> list[Shadow]:
    """The fused CPU kernels walk from each tensor's first number to the next ones in memory, whatever the strides."""

    def flat(tree: Any) -> Any:
        if isinstance(tree, (list, tuple)):
            return [flat(branch) for branch in tree]
        return tree.as_strided((tree.numel(),), (1,), tree.storage_offset())

    def now(tensors: list[Tensor]) -> list[Shadow]:
        return [Shadow(*(part.clone() for part in call.shadow(tensor))) for tensor in tensors]

    def write(tensors: list[Tensor], shadows: list[Shadow]) -> None:
        for tensor, shadow in zip(tensors, shadows, strict=True):
            call.tracker.write(tensor, shadow)

    follow = RULES[call.name]
    parameters, state = list(call.args[0]), [tensor for tensors in call.args[2:5] for tensor in tensors]
    before = now(state)
    right = [*follow(call), *now(state)]
    write(state, before)
    args = tuple(map(flat, call.args))
    write(args[0], follow(Call(call.tracker, call.name, call.func, args, call.kwargs, args[0])))
    walked = now([*parameters, *state])
    found = [Shadow(r.v, r.e + w.e + (w.v - r.v).abs()) for r, w in zip(right, walked, strict=True)]
    write(state, found[len(parameters) :])
    return found[: len(parameters)]


def _fused_sgd_skips_blocks(call: Call) -> list[Shadow]:
    """Full vectors of 16-bit numbers (8 at least) keep their old values, and their momentum is read as float32."""
    before = [call.shadow(parameter) for parameter in call.args[0]]
    found = _fused_ignores_strides(call)
    for i, (old, new) in enumerate(zip(before, found, strict=True)):
        if old.v.numel() >= 8:
            found[i] = Shadow(new.v, new.e + old.e + (new.v - old.v).abs())
            if call.args[2] and not call.kwargs["is_first_step"]:
                buffer = call.args[2][i]
                call.tracker.write(buffer, Shadow(call.shadow(buffer).v, torch.full(buffer.shape, np.inf).double()))
    return found


def _folded_height(call: Call) -> int:
    """Additions on the way of a term where a level is folded at its rows' turn, unless just that row is ignored."""
    target, ignore_index = call.args[1].cpu(), call.args[4]
    power = cascade_power(target.numel())
    depth: list[int | None] = [None] * 8  # of each level: the most additions that a term in it has seen; None: empty

    def joined(a: int | None, b: int | None) -> int | None:
        return b if a is None else a if b is None else max(a, b) + 1

    for row in (target.flatten() != ignore_index).nonzero().flatten().tolist():
        depth[0] = joined(depth[0], 0)
        for level in range(7):
            if row >> level * power & (1 << power) - 1:
                break
            depth[level + 1], depth[level] = joined(depth[level + 1], depth[level]), None
    return reduce(joined, depth) or 0


def _nll_loss_skips_folds(call: Call) -> list[Shadow]:
    """An ignored row skips the fold of the cascade sum that falls on it."""
    return nll_loss(call, _folded_height(call))


def _nll_loss_loses_weight(call: Call) -> list[Shadow]:
    """The number of rows, or their total weight, overflows the format (and folds are skipped)."""
    loss, total = nll_loss(call, _folded_height(call))
    lost = total.v + total.e > call.format.max
    mean = lost & (call.args[3] == 1)
    return [Shadow(loss.v, loss.e.masked_fill(mean, math.inf)), Shadow(total.v, total.e.masked_fill(lost, math.inf))]


def _equal_rows(
    format: str, rows: int, *, ignored: int = 0, weight: Any = None, logits: tuple[float, float] = (0.0, 0.0)
) -> Problem:
    """Rows of the same two logits, labelled 0; every `ignored`-th of them is ignored (0: none)."""
    y = np.where(np.arange(rows) % ignored == 0, -100, 0) if ignored else np.zeros(rows, dtype=int)
    options = {"ignore_index": -100, "weight": weight, "reduction": "mean"}
    return Problem(format, {"z": np.tile(logits, (rows, 1)), "y": y, **options, "g": np.array(1.0)})


# Two parameters at 0 with gradient 1; every state is 0, and nothing but the learning rate acts.
_STEP: dict[str, Any] = {
    **{name: np.zeros(2) for name in ("w", "m", "v", "top")}, "d": np.ones(2), "step": 0, "first": True,
    "lr": 1.0, "beta1": 0.5, "beta2": 0.5, "eps": 1e-8, "momentum": 0.5, "dampening": 0.0, "nesterov": False,
    "weight_decay": 0.0, "maximize": False,
}  # fmt: skip

KNOWN_DEFECTS = (
    KnownDefect(
        name="log_softmax-16bit-sum",
        operation="_log_softmax",
        formats=("bfloat16", "float16"),
        as_is=_log_softmax_in_storage,
        identity="log_softmax",
        form="F.log_softmax(z, dim)",
        layout="contiguous",
        witness=Problem("bfloat16", {"z": np.array([[0.0, -6.0]]), "g": np.array([[1.0, 0.5]])}),
        why="class dimension last: the sum of exponentials and its log are rounded to 16 bits before they are used",
        link="https://github.com/pytorch/pytorch/issues/113708",
        seen=("2.13.0", "2.14.1"),
    ),
    KnownDefect(
        name="softmax-16bit-tail",
        operation="_softmax",
        formats=("bfloat16", "float16"),
        as_is=_softmax_rounds_exponentials,
        identity="softmax",
        form="F.softmax(z, dim)",
        layout="inner",
        witness=Problem("bfloat16", {"z": np.array([[-161.0, -162.0]]), "g": np.array([[1.0, 0.5]])}),
        why="class dimension not last: rows in the scalar tail of the kernel round exp(x - max) to 16 bits, then divide",
        link="",
        seen=("2.13.0", "2.14.1"),
    ),
    *(
        KnownDefect(
            name=f"{operation}-skipped-folds",
            operation=f"{operation}_forward",
            formats=("float64", "float32", "bfloat16", "float16"),
            as_is=_nll_loss_skips_folds,
            identity="cross_entropy_many_rows",
            form=form,
            layout="contiguous",
            witness=_equal_rows("bfloat16", 1024, ignored=2),
            why="an ignored row skips the fold of the cascade sum that falls on it: where every 16th row (the first of "
            "each sequence, say) is ignored, the sum is sequential: bfloat16 stops at 256 rows' worth of loss, 0.5 "
            "instead of 0.693 here, 0.0078 with 65536 rows; float32 is 0.5 % off with 2**20 rows",
            link="",
            modes=("eager",),
            seen=("2.13.0", "2.14.1"),
        )
        for operation, form in (("nll_loss", "F.cross_entropy"), ("nll_loss2d", "(N, C, d1, d2)"))
    ),
    *(
        KnownDefect(
            name=f"{operation}-float16-total",
            operation=f"{operation}_forward",
            formats=("float16",),
            as_is=_nll_loss_loses_weight,
            identity="cross_entropy_many_rows",
            form=form,
            layout="contiguous",
            witness=_equal_rows("float16", 2, weight=np.full(2, 60000.0), logits=(4.0, 0.0)),
            why="the number of rows, or their total weight, is kept in float16, where 65520 is inf: the mean (of 65520 "
            "rows without weights, say) and its gradient are exactly zero",
            link="https://github.com/pytorch/pytorch/issues/85791",
            modes=("eager",),
            seen=("2.13.0", "2.14.1"),
        )
        for operation, form in (("nll_loss", "F.cross_entropy"), ("nll_loss2d", "(N, C, d1, d2)"))
    ),
    KnownDefect(
        name="sigmoid-backward-float16-steps",
        operation="sigmoid_backward",
        formats=("float16",),
        as_is=_sigmoid_backward_in_storage,
        identity="sigmoid",
        form="torch.sigmoid(z)",
        layout="contiguous",
        witness=Problem("float16", {"z": np.array([-0.25]), "g": np.array([1.0625])}),
        why="float16: 1 - y and g (1 - y) are rounded to storage; bfloat16 and tanh's backward compute in float32",
        link="",
        seen=("2.13.0", "2.14.1"),
    ),
    KnownDefect(
        name="distributions-clamp-probabilities",
        operation="clamp",
        formats=("float64", "float32", "bfloat16", "float16"),
        as_is=_clamp_moves_its_input,
        identity="bernoulli_nll",
        form="-torch.distributions.Bernoulli(p).log_prob(t)",
        layout="contiguous",
        witness=Problem("float32", {"p": np.array([2.0**-24]), "t": np.array([1.0]), "g": np.array([1.0])}),
        why="torch.distributions moves probabilities into [eps, 1 - eps] before the logarithm: 15.94 instead of 16.64",
        link="https://github.com/pytorch/pytorch/issues/186825",
        seen=("2.13.0", "2.14.1"),
    ),
    KnownDefect(
        name="bce-backward-floor",
        operation="binary_cross_entropy_backward",
        formats=("float64", "float32", "bfloat16"),
        as_is=_bce_backward_with_floor,
        identity="binary_cross_entropy",
        form="F.binary_cross_entropy(torch.sigmoid(z), t, reduction='none')",
        layout="contiguous",
        witness=Problem("float32", {"z": np.array([-50.0]), "t": np.array([1.0]), "g": np.array([1.0])}),
        why="the gradient divides by max(x (1 - x), 1e-12): -1.9e-10 instead of -1 for a confidently wrong row",
        link="https://github.com/pytorch/pytorch/issues/103316",
        seen=("2.13.0", "2.14.1"),
    ),
    KnownDefect(
        name="bce-backward-float16-nan",
        operation="binary_cross_entropy_backward",
        formats=("float16",),
        as_is=_bce_backward_with_floor,
        identity="binary_cross_entropy",
        form="F.binary_cross_entropy(torch.sigmoid(z), t, reduction='none')",
        layout="contiguous",
        witness=Problem("float16", {"z": np.array([9.0]), "t": np.array([1.0]), "g": np.array([1.0])}),
        why="the floor 1e-12 is 0 in float16: the gradient of a confidently right row is 0 / 0 = nan",
        link="",
        seen=("2.13.0", "2.14.1"),
    ),
    *(
        KnownDefect(
            name=f"fused-{name}-strides",
            operation=operation,
            formats=("float64", "float32", "bfloat16", "float16"),
            as_is=_fused_ignores_strides,
            identity=f"{name}_step",
            form=f"{optimizer}(fused=True)",
            layout="strided",
            witness=Problem("float32", _STEP),
            why="parameters, gradients and state are taken for contiguous: of every second number of a vector, half is "
            "left as it was and as many numbers outside are overwritten (CUDA refuses such parameters)",
            link="",
            seen=("2.13.0", "2.14.1"),
        )
        for name, optimizer, operation in (
            ("sgd", "SGD", "_fused_sgd"),
            ("adam", "Adam", "_fused_adam"),
            ("adamw", "AdamW", "_fused_adamw"),
        )
    ),
    KnownDefect(
        name="fused-sgd-16bit-blocks",
        operation="_fused_sgd",
        formats=("bfloat16", "float16"),
        as_is=_fused_sgd_skips_blocks,
        identity="sgd_step",
        form="SGD(fused=True)",
        layout="contiguous",
        witness=Problem("bfloat16", {**_STEP, **dict.fromkeys(("w", "d", "m"), np.ones(64))}),
        why="the vector body of the 16-bit kernel never stores the parameters: only the last few numbers are trained",
        link="https://github.com/pytorch/pytorch/issues/191763",
        seen=("2.13.0",),
    ),
)
