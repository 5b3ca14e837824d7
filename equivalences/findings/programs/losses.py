"""Findings on losses in every format."""

from __future__ import annotations

from equivalences.findings.model import Severity
from equivalences.findings.programs.finding import Finding, Stated, known
from equivalences.model import EVERY_FORMAT

LOSSES = (
    Finding(
        name="ignored-rows",
        title="Ignored rows at regular places spoil the mean of `cross_entropy` and `nll_loss`",
        of=known("nll_loss-skipped-folds"),
        example="""\
import torch
import torch.nn.functional as F

z = torch.zeros(65536, 2, dtype=torch.bfloat16)
y = torch.zeros(65536, dtype=torch.long)
y[::2] = -100  # every second row is ignored
keep = y != -100
print(F.cross_entropy(z, y).item(), "for log 2 = 0.693")
print(F.cross_entropy(z[keep], y[keep]).item(), "instead")

z, y = torch.zeros(2**20, 2), torch.zeros(2**20, dtype=torch.long)
y[::16] = -100  # every 16th, in float32
keep = y != -100
print(f"{F.cross_entropy(z, y).item():.4f}, {F.cross_entropy(z[keep], y[keep]).item():.4f} instead")
""",
        prints="""\
0.0078125 for log 2 = 0.693
0.69140625 instead
0.6887, 0.6931 instead
""",
    ),
    Finding(
        name="bce-confidently-wrong",
        title="`BCELoss` after a sigmoid: the rows that are most wrong get no gradient",
        of=known("bce-backward-floor"),
        example="""\
import torch
import torch.nn.functional as F

z, t = torch.tensor([-50.0], requires_grad=True), torch.tensor([1.0])
(gradient,) = torch.autograd.grad(F.binary_cross_entropy(torch.sigmoid(z), t), z)
print(f"{gradient.item():.2g}")
(gradient,) = torch.autograd.grad(F.binary_cross_entropy_with_logits(z, t), z)  # instead
print(gradient.item())
""",
        prints="""\
-1.9e-10
-1.0
""",
    ),
    Finding(
        name="distributions-clamp",
        title="`torch.distributions` moves probabilities away from 0 and 1 before it takes the logarithm",
        of=known("distributions-clamp-probabilities"),
        example="""\
import torch
from torch.distributions import Bernoulli

z, t = torch.tensor([-50.0]), torch.tensor([1.0])
print(f"{Bernoulli(torch.sigmoid(z)).log_prob(t).item():.2f}")
print(f"{Bernoulli(logits=z).log_prob(t).item():.2f}")  # instead
""",
        prints="""\
-15.94
-50.00
""",
    ),
    Finding(
        name="sum-of-a-slice",
        title="`sum` and `mean` of a slice or an expanded tensor add number by number",
        of=known("mean-piece-by-piece"),
        example="""\
import torch

torch.set_num_threads(1)
x = torch.ones(2**23, 4)[:, :3]
print(f"{x.mean().item():.2f} {x.contiguous().mean().item():.2f}")  # with one thread
torch.set_num_threads(2)
print(f"{x.mean().item():.2f}")  # two threads add half of the numbers each, and that is still exact here
""",
        prints="""\
1.11 1.00
1.00
""",
    ),
    Finding(
        name="soft-margin-overflow",
        title="`soft_margin_loss` overflows for rows that are confidently wrong",
        of=Stated(
            severity=Severity.SERIOUS,
            off="inf instead of 89 at the margin -89, gradient nan instead of -1",
            hurts="confidently wrong rows",
            instead="F.softplus(-t * z)",
            formats=EVERY_FORMAT,
            modes=("eager", "compiled"),
            seen=("2.8.0", "2.13.0", "2.14.1", "2.15.0"),
            why=(
                "the loss is log(1 + exp(-t z)) as written: exp overflows from 89 on in float32, from 12 on in float16"
            ),
        ),
        example="""\
import torch
import torch.nn.functional as F

z, t = torch.tensor([-89.0], requires_grad=True), torch.tensor([1.0])
for loss in (F.soft_margin_loss(z, t), F.softplus(-t * z).mean()):
    print(loss.item(), torch.autograd.grad(loss, z)[0].item())
""",
        prints="""\
inf nan
89.0 -1.0
""",
    ),
    Finding(
        name="linear-cross-entropy-ignored-nan",
        title="`linear_cross_entropy` in chunks: an ignored row of nan makes the loss nan",
        of=Stated(
            severity=Severity.SERIOUS,
            off="the value is nan, whatever the other rows",
            hurts="token batches with padding that holds nan or inf",
            instead="F.cross_entropy(x @ W.t(), y)",
            formats=EVERY_FORMAT,
            link="https://github.com/pytorch/pytorch/issues/11551",
            modes=("eager", "compiled"),
            seen=("2.13.0", "2.14.1", "2.15.0"),
            why="in chunks, the loss of an ignored row is multiplied by 0, and 0 times nan is nan",
        ),
        example="""\
import torch
import torch.nn.functional as F

x = torch.tensor([[1.0, 0.0], [torch.nan, torch.nan]])
W, y = torch.eye(2), torch.tensor([0, -100])
chunks = torch.nn.LinearCrossEntropyOptions()
print(F.linear_cross_entropy(x, W, y, options=chunks).item())
print(f"{F.cross_entropy(x @ W.t(), y).item():.4f}")
""",
        prints="""\
nan
0.3133
""",
    ),
    Finding(
        name="vmap-of-cross-entropy",
        title="`torch.func.vmap` of `cross_entropy` with weights, label smoothing and the mean raises",
        of=Stated(
            severity=Severity.SERIOUS,
            off="RuntimeError, where the loop over the rows gives numbers",
            hurts="per-sample losses and gradients",
            instead="[loss(*row) for row in zip(z, y)]",
            formats=EVERY_FORMAT,
            link="https://docs.pytorch.org/docs/stable/func.ux_limitations.html",
            modes=("eager",),
            seen=("2.8.0", "2.13.0", "2.14.1", "2.15.0"),
            why=(
                "with weights, label smoothing and the mean together, the code selects rows by a mask, "
                "which vmap cannot"
            ),
        ),
        example="""\
import torch
import torch.nn.functional as F

z, y, weight = torch.zeros(2, 1, 3), torch.tensor([[0], [1]]), torch.tensor([1.0, 2.0, 3.0])


def loss(z, y):
    return F.cross_entropy(z, y, weight=weight, label_smoothing=0.1)


try:
    torch.func.vmap(loss)(z, y)
except RuntimeError as error:
    print("RuntimeError:", str(error)[:60])
losses = [loss(*row) for row in zip(z, y)]  # instead
print([round(loss.item(), 4) for loss in losses])
""",
        prints="""\
RuntimeError: vmap: Attempted to vmap over `mask` in torch.masked_select(s
[1.2085, 1.0986]
""",
    ),
)
