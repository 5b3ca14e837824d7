"""Code that repeats one run with torch alone: the problem, its layout, the form, the gradient."""

from __future__ import annotations

import base64
import inspect
import textwrap
import zlib
from typing import Any

import numpy as np
import torch

from equivalences.formats import FORMATS
from equivalences.model import Array, Form, Identity, Problem
from equivalences.running.forms import NAMES, function_source
from equivalences.running.layouts import LAYOUTS, layout_code

LONG = 512  # numbers; more than that are packed


def _literal(item: Array, dtype: str) -> str:
    """An expression for a tensor of these numbers."""
    device = "device=device"
    numbers = item.ravel()
    if item.size > 4 and (numbers == numbers[0]).all() and not (numbers == 0).any():
        return f"torch.full({item.shape}, {numbers[0].item()!r}, dtype={dtype}, {device})"
    if item.size and item.size <= LONG:
        return f"torch.tensor({item.tolist()!r}, dtype={dtype}, {device})"
    if not item.size:
        return f"torch.empty({item.shape}, dtype={dtype}, {device})"
    packed = base64.b64encode(zlib.compress(np.ascontiguousarray(item).tobytes(), 9)).decode()
    raw = f'torch.frombuffer(bytearray(zlib.decompress(base64.b64decode("{packed}"))), dtype=torch.{item.dtype})'
    return f"{raw}.reshape({item.shape}).to(device, {dtype})"


def _assignments(identity: Identity, problem: Problem, layout: str) -> list[str]:
    plan = LAYOUTS[layout]
    lines = [f"# {plan.name}: {plan.what}"]
    for name, item in problem.items.items():
        if not isinstance(item, np.ndarray):
            lines.append(f"{name} = {item!r}")
            continue
        dtype = FORMATS[problem.format].dtype if item.dtype.kind == "f" else torch.tensor(np.zeros(1, item.dtype)).dtype
        code = layout_code(identity, problem, plan, name)
        first = name if code == "x" or "x" in problem.items else "x"
        lines.append(f"{first} = {_literal(item, str(dtype))}")
        if code != "x":
            lines.append(f"{name} = {code if first == 'x' else f'(lambda x: {code})({name})'}")
    return [*lines, f"dim = {plan.dim}"]


def _definition(form: Form, names: tuple[str, ...]) -> str:
    """The form as the source of a function `form` of keyword arguments."""
    if isinstance(form.code, str):
        return function_source(form, names).rstrip()
    source = textwrap.dedent(inspect.getsource(form.code))
    wanted = [name for name in names if name in inspect.signature(form.code).parameters]
    if source.startswith("def "):
        call = f"{form.code.__name__}({', '.join(f'{name}={name}' for name in wanted)})"
        return f"{source}\n\ndef form({', '.join(names)}):\n    return {call}"
    return f"# the form is a callable without a source of its own: {form.label}"


def _imports(body: str) -> list[str]:
    lines = []
    for name in ("base64", "zlib"):
        if f"{name}." in body:
            lines.append(f"import {name}")
    for name, thing in NAMES.items():
        if name != "torch" and f"{name}." not in body:
            continue
        parent, _, last = thing.__name__.rpartition(".")
        if thing.__name__ == name:
            lines.append(f"import {name}")
        else:
            lines.append(f"from {parent} import {last}" if last == name else f"import {thing.__name__} as {name}")
    numbers = [name for name in ("inf", "nan") if any(f"{mark}{name}" in body for mark in ("[", " ", "-", "("))]
    return [*lines, *([f"from math import {', '.join(numbers)}"] if numbers else [])]


def snippet(
    identity: Identity,
    form: Form,
    problem: Problem,
    *,
    layout: str = "contiguous",
    device: str = "cpu",
    mode: str = "eager",
    show: str = "",
) -> str:
    """A program that leaves the form's output in `value`, and the gradient by each item in `gradient_<item>`.

    `show` are lines that print from these.
    """
    body = _assignments(identity, problem, layout)
    names = tuple(name for name in (*problem.items, "dim") if name != "g")
    body += ["", "", *_definition(form, names).splitlines(), "", ""]
    if mode == "compiled":
        body.append("form = torch.compile(form, dynamic=False)")
    wrt = identity.wrt if "g" in problem.items else ()
    body += [f"{name}.requires_grad_()" for name in wrt]
    body.append(f"value = form({', '.join(f'{name}={name}' for name in names)})")
    if wrt:
        targets = "".join(f"gradient_{name}, " for name in wrt).rstrip(" " if len(wrt) == 1 else ", ")
        body.append(f"{targets} = torch.autograd.grad(value, [{', '.join(wrt)}], g.to(value.dtype))")
    text = "\n".join([*body, *show.splitlines()])
    head = [*_imports(text), "", f"torch.set_num_threads({torch.get_num_threads()})", f"device = {device!r}"]
    return "\n".join([*head, text]) + "\n"


def place(identity: Identity, problem: Problem, layout: str, quantity: str, shape: tuple[int, ...], index: Any) -> str:
    """The expression that picks, from what a snippet leaves behind, the number that has `index` in canonical axes."""
    name = quantity.replace(" ", "_")
    if not shape:
        return f"{name}.item()"
    item = "g" if quantity == "value" else quantity.removeprefix("gradient ")
    code = layout_code(identity, problem, LAYOUTS[layout], item)
    # Lay out the canonical positions as the form's own tensor is, and look where this one went.
    positions = torch.arange(int(np.prod(shape, dtype=np.int64))).reshape(shape)
    laid = eval(code, {"torch": torch, "x": positions})
    position = int((laid.reshape(-1) == positions[index]).nonzero()[0])
    return f"{name}.reshape(-1)[{position}].item()" if laid.dim() else f"{name}.item()"
