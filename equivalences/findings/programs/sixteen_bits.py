"""Findings on losses in 16 bits."""

from __future__ import annotations

from equivalences.findings.model import Severity
from equivalences.findings.programs.finding import Finding, Stated, known

SIXTEEN_BITS = (
    Finding(
        name="float16-row-count",
        title="From 65,520 float16 rows on, the mean of `cross_entropy` is 0, and so is its gradient",
        of=known("nll_loss-float16-total"),
        example="""\
import torch
import torch.nn.functional as F

y = torch.zeros(65520, dtype=torch.long)
z = torch.zeros(65520, 2, dtype=torch.float16, requires_grad=True)

loss = F.cross_entropy(z, y)
(gradient,) = torch.autograd.grad(loss, z)
print(loss.item(), gradient.abs().max().item())

loss = F.cross_entropy(z.float(), y)  # instead
(gradient,) = torch.autograd.grad(loss, z)
print(f"{loss.item():.4f} {gradient.abs().max().item():.2e}")
""",
        prints="""\
0.0 0.0
0.6931 7.63e-06
""",
    ),
    Finding(
        name="float16-total-of-losses",
        title="In float16, `cross_entropy` is inf where the losses add up to more than 65,504",
        of=Stated(
            severity=Severity.SERIOUS,
            off=(
                "inf instead of 16 for the mean of 4,096 rows of loss 16; inf instead of 9.0 for one row "
                "of 8,000 equal logits with smoothing 0.1; gradients are right"
            ),
            hurts="float16 logits over a vocabulary; large float16 batches early in training",
            instead="F.cross_entropy(z.float(), y)",
            formats=("float16",),
            link="https://github.com/pytorch/pytorch/issues/85791",
            modes=("eager",),
            seen=("2.8.0", "2.13.0", "2.14.1", "2.15.0"),
            why=(
                "the losses are added up in float16 before they are divided by their number: of all rows "
                "for the mean, of all classes for label smoothing"
            ),
        ),
        example="""\
import torch
import torch.nn.functional as F

z = torch.tensor([[0.0, 16.0]], dtype=torch.float16).repeat(4096, 1)
y = torch.zeros(4096, dtype=torch.long)
print(F.cross_entropy(z, y).item(), F.cross_entropy(z.float(), y).item())

z, y = torch.zeros(1, 8000, dtype=torch.float16), torch.tensor([0])
print(F.cross_entropy(z, y, label_smoothing=0.1).item())
print(round(F.cross_entropy(z.float(), y, label_smoothing=0.1).item(), 2))
""",
        prints="""\
inf 16.0
inf
8.99
""",
    ),
    Finding(
        name="float16-class-weights",
        title="In float16, class weights whose total is beyond 65,504 make the mean 0 or nan",
        of=Stated(
            severity=Severity.SERIOUS,
            off="nan, or 0, instead of 1.10 or 0.69 for 2,049 equal rows of weight 40; the gradient is 0",
            hurts="large float16 batches with class weights",
            instead="F.cross_entropy(z.float(), y, weight=weight.float())",
            formats=("float16",),
            link="https://github.com/pytorch/pytorch/issues/85791",
            modes=("eager",),
            seen=("2.8.0", "2.13.0", "2.14.1", "2.15.0"),
            why=(
                "the total weight is kept in float16, where it is inf from 65,520 on: the mean is 0, or "
                "nan where the total of the weighted losses is inf as well"
            ),
        ),
        example="""\
import torch
import torch.nn.functional as F

y = torch.zeros(2049, dtype=torch.long)
for classes in (2, 3):  # with three, the total of the weighted losses is beyond 65,504 as well
    z = torch.zeros(2049, classes, dtype=torch.float16, requires_grad=True)
    weight = torch.full((classes,), 40.0, dtype=torch.float16)
    loss = F.cross_entropy(z, y, weight=weight)
    (gradient,) = torch.autograd.grad(loss, z)
    right = F.cross_entropy(z.float(), y, weight=weight.float())
    print(loss.item(), gradient.abs().max().item(), round(right.item(), 4))
""",
        prints="""\
0.0 0.0 0.6931
nan 0.0 1.0986
""",
    ),
    Finding(
        name="float16-small-weights",
        title="In float16, the gradient of `cross_entropy` is nan where all weights of a batch are tiny",
        of=Stated(
            severity=Severity.SERIOUS,
            off="gradient nan and inf instead of -0.5 and 0.5",
            hurts="small class weights and scaled losses in float16",
            instead="F.cross_entropy(z.float(), y, weight=weight.float())",
            formats=("float16",),
            modes=("eager",),
            seen=("2.8.0", "2.13.0", "2.14.1", "2.15.0"),
            why=(
                "the gradient from above is divided by the total weight before it is multiplied by the "
                "row's: where it is more than 65,504 times as large, that overflows"
            ),
        ),
        example="""\
import torch
import torch.nn.functional as F

z, y = torch.zeros(1, 2, dtype=torch.float16, requires_grad=True), torch.tensor([0])
weight = torch.full((2,), 2.0**-17, dtype=torch.float16)
print(torch.autograd.grad(F.cross_entropy(z, y, weight=weight), z)[0].tolist())
print(torch.autograd.grad(F.cross_entropy(z.float(), y, weight=weight.float()), z)[0].tolist())
""",
        prints="""\
[[nan, inf]]
[[-0.5, 0.5]]
""",
    ),
    Finding(
        name="log-softmax-16-bits",
        title="In 16 bits, `log_softmax` and `cross_entropy` round the sum of the exponentials",
        of=known("log_softmax-16bit-sum"),
        example="""\
import torch
import torch.nn.functional as F

z, y = torch.tensor([[0.0, -6.0]], dtype=torch.bfloat16), torch.tensor([0])
print(F.cross_entropy(z, y).item(), f"{F.cross_entropy(z.float(), y).item():.5f}")

z = torch.zeros(1, 65520, dtype=torch.float16)
print(F.cross_entropy(z, y).item(), f"{F.cross_entropy(z.float(), y).item():.2f}")
""",
        prints="""\
0.0 0.00248
inf 11.09
""",
    ),
    Finding(
        name="softmax-16-bits",
        title=("In 16 bits, `softmax` over a dimension that is not the last depends on the place in the batch"),
        of=known("softmax-16bit-tail"),
        example="""\
import torch

z = torch.tensor([-161.0, -162.0], dtype=torch.bfloat16).repeat(33, 1).t().contiguous()  # 33 equal columns
first, *_, last = torch.softmax(z, dim=0)[1].tolist()
print(first, last)
first, *_, last = torch.softmax(z.float(), dim=0).to(z.dtype)[1].tolist()  # instead
print(first, last)
""",
        prints="""\
0.26953125 0.267578125
0.26953125 0.26953125
""",
    ),
    Finding(
        name="bce-float16-nan",
        title=("`BCELoss` after a sigmoid in float16: a row that is confidently right gives a gradient of nan"),
        of=known("bce-backward-float16-nan"),
        example="""\
import torch
import torch.nn.functional as F

z, t = torch.tensor([9.0], dtype=torch.float16, requires_grad=True), torch.tensor([1.0])
(gradient,) = torch.autograd.grad(F.binary_cross_entropy(torch.sigmoid(z), t.half()), z)
print(gradient.item())
(gradient,) = torch.autograd.grad(F.binary_cross_entropy_with_logits(z.float(), t), z)  # instead
print(f"{gradient.item():.2g}")
""",
        prints="""\
nan
-0.00012
""",
    ),
    Finding(
        name="logit-16-bits",
        title="In 16 bits, `logit` loses half of its value next to 1/2",
        of=known("logit-16bit-steps"),
        example="""\
import torch

p = torch.tensor([0.5 - 2.0**-12], dtype=torch.float16)
print(f"{torch.logit(p).item():.6f} {torch.logit(p.float()).item():.6f}")
""",
        prints="""\
-0.000488 -0.000977
""",
    ),
    Finding(
        name="sigmoid-float16",
        title="In float16, the gradient of `sigmoid` is rounded at every step",
        of=known("sigmoid-backward-float16-steps"),
        example="""\
import torch

z = torch.tensor([-0.25], dtype=torch.float16, requires_grad=True)
g = torch.tensor([1.0625], dtype=torch.float16)
print(f"{torch.autograd.grad(torch.sigmoid(z), z, g)[0].item():.6f}")
print(f"{torch.autograd.grad(torch.sigmoid(z.float()), z, g.float())[0].item():.6f}")  # instead, rounded once
""",
        prints="""\
0.261719
0.261475
""",
    ),
)
