"""How a fault is written: code with its value changed, or its gradient, at some places or everywhere.

In a change, `v` is the value, `g` a gradient, and `u` the unit roundoff of the format: faults scale with it.
"""

from __future__ import annotations

VALUE, GRADIENT, BOTH = ("value",), ("gradient",), ("value", "gradient")
WIDE, NARROW = ("float64", "float32"), ("bfloat16", "float16")

MEAN = "rows.sum() / (mass if reduction == 'mean' else 1)"

_U = "u = torch.finfo({}.dtype).eps / 2\n"


def value(change: str, code: str) -> str:
    """`code`, whose value `v` becomes `change` (and its gradient with it, unless the change is detached)."""
    *before, last = code.strip().split("\n")
    return "\n".join([*before, f"v = {last}", _U.format("v") + change])


def gradient(change: str, code: str, item: str = "z") -> str:
    """`code`, whose gradient `g` by `item` becomes `change`; its value is right."""
    hook = f"{item} = {item}.view_as({item})\n{item}.register_hook(lambda g: {change})\n"
    return _U.format(item) + hook + code


def upstream(change: str, code: str) -> str:
    """`code` that takes `change` for the upstream gradient `g`; its value is right."""
    *before, last = code.strip().split("\n")
    return "\n".join([*before, f"v = {last}", f"v.register_hook(lambda g: {change})", "v.view_as(v)"])
