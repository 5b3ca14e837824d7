"""Findings where small numbers lose their digits: what the table `unstable` lists."""

from __future__ import annotations

from equivalences.findings.programs.finding import Finding, unstable

TAILS = (
    Finding(
        name="binary_cross_entropy_with_logits-value",
        title="`binary_cross_entropy_with_logits`, target 0: small losses lose their digits, and become 0",
        of=unstable("binary_cross_entropy_with_logits-value"),
        example="""\
import torch
import torch.nn.functional as F

z, t = torch.tensor([-10.0, -15.0]), torch.zeros(2)
print([f"{x:.3g}" for x in F.binary_cross_entropy_with_logits(z, t, reduction="none").tolist()])
print([f"{x:.3g}" for x in F.softplus(z).tolist()])  # instead, for target 0
""",
        prints="""\
['4.58e-05', '0']
['4.54e-05', '3.06e-07']
""",
    ),
    Finding(
        name="binary_cross_entropy_with_logits-gradient",
        title="`binary_cross_entropy_with_logits`, target 1: small gradients become 0",
        of=unstable("binary_cross_entropy_with_logits-gradient"),
        example="""\
import torch
import torch.nn.functional as F

z, t = torch.tensor([16.0, 17.0], requires_grad=True), torch.ones(2)
for loss in (F.binary_cross_entropy_with_logits(z, t, reduction="sum"), F.softplus(-z).sum()):
    print([f"{x:.3g}" for x in torch.autograd.grad(loss, z)[0].tolist()])
""",
        prints="""\
['-1.19e-07', '0']
['-1.13e-07', '-4.14e-08']
""",
    ),
    Finding(
        name="sigmoid-gradient",
        title="The gradient of `sigmoid` is 0 from the logit 17 on",
        of=unstable("sigmoid-gradient"),
        example="""\
import torch
import torch.nn.functional as F

z = torch.tensor([16.0, 17.0], requires_grad=True)
for sigmoid in (torch.sigmoid(z), F.logsigmoid(z).exp()):
    print([f"{x:.3g}" for x in torch.autograd.grad(sigmoid.sum(), z)[0].tolist()])
""",
        prints="""\
['1.19e-07', '0']
['1.13e-07', '4.14e-08']
""",
    ),
    Finding(
        name="log_softmax-value",
        title="`log_softmax` of the class that dominates loses its digits, and becomes 0",
        of=unstable("log_softmax-value"),
        example="""\
import torch
import torch.nn.functional as F

z, dim = torch.tensor([[15.0, 0.0], [17.0, 0.0]]), 1
for logp in (F.log_softmax(z, dim), F.log_softmax(z.double(), dim)):
    print([f"{x:.3g}" for x in logp[:, 0].tolist()])
""",
        prints="""\
['-3.58e-07', '0']
['-3.06e-07', '-4.14e-08']
""",
    ),
    Finding(
        name="log_softmax-gradient",
        title="The gradient of `log_softmax` at the class that dominates becomes 0",
        of=unstable("log_softmax-gradient"),
        example="""\
import torch
import torch.nn.functional as F

z, dim = torch.tensor([[16.0, 0.0], [17.0, 0.0]], requires_grad=True), 1
for logp in (F.log_softmax(z, dim), F.log_softmax(z.double(), dim)):
    print([f"{x:.3g}" for x in torch.autograd.grad(logp[:, 0].sum(), z)[0][:, 0].tolist()])
""",
        prints="""\
['1.19e-07', '0']
['1.13e-07', '4.14e-08']
""",
    ),
    Finding(
        name="softmax-gradient",
        title="The gradient of `softmax` at the class that dominates becomes 0",
        of=unstable("softmax-gradient"),
        example="""\
import torch
import torch.nn.functional as F

z, dim = torch.tensor([[16.0, 0.0], [17.0, 0.0]], requires_grad=True), 1
for p in (F.softmax(z, dim), F.softmax(z.double(), dim)):
    print([f"{x:.3g}" for x in torch.autograd.grad(p[:, 0].sum(), z)[0][:, 0].tolist()])
""",
        prints="""\
['1.19e-07', '0']
['1.13e-07', '4.14e-08']
""",
    ),
    Finding(
        name="cross_entropy-value",
        title="`cross_entropy` of a row that is confidently right loses its digits, and becomes 0",
        of=unstable("cross_entropy-value"),
        example="""\
import torch
import torch.nn.functional as F

y = torch.tensor([0])
for z in (torch.tensor([[15.0, 0.0]]), torch.tensor([[17.0, 0.0]])):
    print(f"{F.cross_entropy(z, y).item():.3g} {F.cross_entropy(z.double(), y).item():.3g}")
""",
        prints="""\
3.58e-07 3.06e-07
0 4.14e-08
""",
    ),
    Finding(
        name="cross_entropy-gradient",
        title="The gradient of `cross_entropy` at the label of a confidently right row becomes 0",
        of=unstable("cross_entropy-gradient"),
        example="""\
import torch
import torch.nn.functional as F

z, y = torch.tensor([[17.0, 0.0]], requires_grad=True), torch.tensor([0])
for loss in (F.cross_entropy(z, y), F.cross_entropy(z.double(), y)):
    print([f"{x:.3g}" for x in torch.autograd.grad(loss, z)[0][0].tolist()])
""",
        prints="""\
['0', '4.14e-08']
['-4.14e-08', '4.14e-08']
""",
    ),
    Finding(
        name="logsigmoid-second-derivative",
        title="The second derivative of `logsigmoid` becomes 0",
        of=unstable("logsigmoid-second-derivative"),
        example="""\
import torch
import torch.nn.functional as F

z = torch.tensor([16.0, 17.0], requires_grad=True)
for loss in (-F.logsigmoid(z), F.softplus(-z)):
    (first,) = torch.autograd.grad(loss.sum(), z, create_graph=True)
    print([f"{x:.3g}" for x in torch.autograd.grad(first.sum(), z)[0].tolist()])
""",
        prints="""\
['1.19e-07', '-0']
['1.13e-07', '4.14e-08']
""",
    ),
)
