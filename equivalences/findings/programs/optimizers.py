"""Findings on optimizers."""

from __future__ import annotations

from equivalences.findings.programs.finding import Finding, known

OPTIMIZERS = (
    Finding(
        name="fused-strides",
        title="Fused SGD, Adam and AdamW write past a parameter that is not contiguous",
        of=known("fused-sgd-strides"),
        example="""\
import torch

for choice in (dict(fused=True), dict(foreach=True)):
    memory = torch.zeros(8)
    w = torch.nn.Parameter(memory[::2])  # every second number
    w.grad = torch.ones(8)[::2]
    torch.optim.SGD([w], lr=1.0, **choice).step()
    print(*choice, memory.tolist())
""",
        prints="""\
fused [-1.0, -1.0, -1.0, -1.0, 0.0, 0.0, 0.0, 0.0]
foreach [-1.0, 0.0, -1.0, 0.0, -1.0, 0.0, -1.0, 0.0]
""",
    ),
    Finding(
        name="fused-sgd-16-bits",
        title="Fused SGD in 16 bits does not store the parameters",
        of=known("fused-sgd-16bit-blocks"),
        example="""\
import torch

for choice in (dict(fused=True), dict(foreach=True)):
    w = torch.nn.Parameter(torch.ones(100, dtype=torch.bfloat16))
    w.grad = torch.ones_like(w)
    torch.optim.SGD([w], lr=0.5, **choice).step()
    print(*choice, (w == 1).sum().item(), "of 100 did not move")
""",
        prints="""\
fused 96 of 100 did not move
foreach 0 of 100 did not move
""",
    ),
    Finding(
        name="foreach-number",
        title="In 16 bits, `foreach=True` rounds its factors to 16 bits first",
        of=known("foreach_mul-16bit-number"),
        example="""\
import torch

x, y = torch.tensor([1.0234375, 1.0234375], dtype=torch.bfloat16).split(1)
torch._foreach_mul_([x], 0.9)  # what foreach=True does to the moments
y.mul_(0.9)  # what foreach=False does
print(x.item(), y.item(), "for", 1.0234375 * 0.9)
""",
        prints="""\
0.91796875 0.921875 for 0.92109375
""",
    ),
)
