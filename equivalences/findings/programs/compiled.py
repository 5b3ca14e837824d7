"""Findings on compiled code."""

from __future__ import annotations

from equivalences.findings.model import Severity
from equivalences.findings.programs.finding import Finding, Stated, known
from equivalences.model import EVERY_FORMAT

COMPILED = (
    Finding(
        name="adam",
        title="Compiled Adam and AdamW take their bias corrections in float32",
        of=known("adam-compiled-float32-correction"),
        example="""\
import torch


def first_step(compiled):
    w = torch.nn.Parameter(torch.zeros(1, dtype=torch.float64))
    w.grad = torch.ones_like(w)
    optimizer = torch.optim.Adam([w], lr=1.0)
    if compiled:
        torch.compile(optimizer.step)()
    else:
        optimizer.step()
    return w.item()


print(f"{first_step(True):.8f} {first_step(False):.8f}")
""",
        prints="""\
-0.99999339 -0.99999999
""",
    ),
    Finding(
        name="expm1",
        title="Compiled `expm1` is exp(x) - 1, and 0 for small numbers",
        of=known("expm1-compiled-difference"),
        example="""\
import torch

x = torch.full((16,), 2.0**-34)
print(f"{torch.compile(torch.expm1)(x)[0].item():.3g}")
instead = torch.compile(lambda x: 2 * torch.sinh(x / 2) * torch.exp(x / 2))
print(f"{instead(x)[0].item():.3g}")
""",
        prints="""\
0
5.82e-11
""",
    ),
    Finding(
        name="soft-margin",
        title="Compiled `soft_margin_loss`: the gradient of a confidently right row is 0",
        of=known("soft-margin-backward-compiled"),
        example="""\
import torch
import torch.nn.functional as F

z, t = torch.tensor([20.0], requires_grad=True), torch.tensor([1.0])
for loss in (lambda z: F.soft_margin_loss(z, t), lambda z: F.softplus(-t * z).mean()):
    print(f"{torch.autograd.grad(torch.compile(loss)(z), z)[0].item():.3g}")
""",
        prints="""\
0
-2.06e-09
""",
    ),
    Finding(
        name="bce-weights",
        title=("Compiled `binary_cross_entropy` with 32-bit weights is float32, eager it has the format of its input"),
        of=Stated(
            severity=Severity.LAST_DIGITS,
            off="dtype float32 instead of bfloat16",
            hurts="16-bit training that goes on in the loss's format",
            instead="F.binary_cross_entropy(p, t, weight=w).to(p.dtype)",
            formats=("bfloat16", "float16"),
            link="https://github.com/pytorch/pytorch/issues/197098",
            modes=("compiled",),
            seen=("2.8.0", "2.13.0", "2.14.1", "2.15.0"),
            why="the compiled decomposition promotes to the format of the weights",
        ),
        example="""\
import torch
import torch.nn.functional as F

p, t, w = torch.tensor([0.5]).bfloat16(), torch.tensor([1.0]).bfloat16(), torch.tensor([2.0])
print(F.binary_cross_entropy(p, t, weight=w).dtype)
print(torch.compile(lambda p: F.binary_cross_entropy(p, t, weight=w))(p).dtype)
print(torch.compile(lambda p: F.binary_cross_entropy(p, t, weight=w).to(p.dtype))(p).dtype)  # instead
""",
        prints="""\
torch.bfloat16
torch.float32
torch.bfloat16
""",
    ),
    Finding(
        name="distributions-validation",
        title="Any `torch.compile` switches the validation of `torch.distributions` off for the process",
        of=Stated(
            severity=Severity.SERIOUS,
            off="no ValueError for a nan, in eager code as well",
            hurts="whoever relies on the ValueError of torch.distributions",
            instead="validate_args=True",
            formats=EVERY_FORMAT,
            link="https://github.com/pytorch/pytorch/issues/185438",
            modes=("eager", "compiled"),
            seen=("2.8.0", "2.13.0", "2.14.1", "2.15.0"),
            why=(
                "the compiler switches the validation of distributions off for the whole process, and "
                "does not switch it on again"
            ),
        ),
        example="""\
import torch
from torch.distributions import Bernoulli


def refused(**options):
    try:
        Bernoulli(logits=torch.tensor([torch.nan]), **options)
    except ValueError:
        return True
    return False


print(refused())
torch.compile(lambda x: x + 1)(torch.ones(1))
print(refused(), refused(validate_args=True))
""",
        prints="""\
True
False True
""",
    ),
    Finding(
        name="adam-fused-then-foreach",
        title="Once `Adam(fused=True)` has been compiled, compiling `Adam(foreach=True)` raises",
        of=Stated(
            severity=Severity.SERIOUS,
            off="TorchRuntimeError instead of a step",
            hurts="whoever compares optimizers in one process",
            instead="one process for each optimizer",
            formats=EVERY_FORMAT,
            link="https://github.com/pytorch/pytorch/issues/121178",
            modes=("compiled",),
            seen=("2.8.0", "2.13.0", "2.14.1", "2.15.0"),
            why="once Adam(fused=True) has been compiled, the compiler skips Adam.step for good",
        ),
        example="""\
import torch


def step(**choice):
    w = torch.nn.Parameter(torch.zeros(2))
    w.grad = torch.ones(2)
    torch.compile(torch.optim.Adam([w], **choice).step)()


step(foreach=True)
print("foreach=True compiles")
step(fused=True)  # do instead: one process for each optimizer
try:
    step(foreach=True)
except Exception as error:
    print(type(error).__name__)
""",
        prints="""\
foreach=True compiles
TorchRuntimeError
""",
    ),
    Finding(
        name="negative-target",
        title="Compiled `cross_entropy` and `nll_loss` take the target -1 for the last class",
        of=Stated(
            severity=Severity.SERIOUS,
            off="the loss of the last class, and no gradient, instead of an exception",
            hurts="whoever pads with -1 and forgets ignore_index",
            instead="F.cross_entropy(z, y, ignore_index=-1)",
            formats=EVERY_FORMAT,
            link="https://github.com/pytorch/pytorch/issues/135546",
            modes=("compiled",),
            seen=("2.8.0",),
            why=(
                "a negative target counts from the last class: the loss is that class's, its gradient 0, "
                "and nothing raises"
            ),
        ),
        example="",
        prints="",
    ),
    Finding(
        name="bce-with-logits-weights",
        title=(
            "Compiled `binary_cross_entropy_with_logits` with 32-bit weights is float32, eager it has "
            "the format of the logits"
        ),
        of=Stated(
            severity=Severity.LAST_DIGITS,
            off="dtype float32 instead of bfloat16",
            hurts="16-bit training that goes on in the loss's format",
            instead="F.binary_cross_entropy_with_logits(z, t, weight=w).to(z.dtype)",
            formats=("bfloat16", "float16"),
            link="https://github.com/pytorch/pytorch/issues/171282",
            modes=("compiled",),
            seen=("2.8.0",),
            why="the compiled decomposition promotes to the format of the weights",
        ),
        example="",
        prints="",
    ),
)
