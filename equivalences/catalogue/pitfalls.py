"""Pitfalls: what looks equal to an identity and is not, and the identity that the mistake does satisfy."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from equivalences.catalogue.cross_entropy import cross_entropy, loss
from equivalences.catalogue.softmax import softmax
from equivalences.model import Differs, Form, Identity, Pitfall, Problem, Raises, Warns
from equivalences.oracle import exact
from equivalences.problems.classes import classes, pairs
from equivalences.problems.scalars import scalars

FLAT = ("contiguous", "strided")
LABELLED = classes(labels=True, layouts=FLAT)
BINARY = scalars(target="index", out="", reduction=("mean",), layouts=FLAT)

LOG_SOFTMAX_NLL = "CrossEntropyLoss = LogSoftmax + NLLLoss"


def _rows(count: int) -> Any:
    """More than `count` rows and more than one class: what most mistakes need to show."""
    return lambda problem: problem["z"].shape[0] > count and problem["z"].shape[-1] > 1


def hinges(p: Any) -> tuple[list[Any], list[Any]]:
    """Softplus of each logit and the targets: a row's loss is softplus(z) - t z."""
    return [exact.softplus(z) for z in p.z], p.t


# --- softmax in the wrong place, or along the wrong dimension ----------------------------------------------------

softmax_twice = Identity(
    name="softmax_twice",
    statement=r"-\log \mathrm{softmax}(\mathrm{softmax}(z))_y",
    source="adam notebook, cells 104-106 (a Softmax layer before CrossEntropyLoss)",
    domain=LABELLED,
    spec=lambda p: [-exact.log_softmax(exact.softmax(row))[y] for row, y in zip(p.z, p.y, strict=True)],
    forms=(
        Form("F.cross_entropy(F.softmax(z, dim), y, reduction='none')"),
        Form("F.nll_loss(F.log_softmax(nn.Softmax(dim)(z), dim), y, reduction='none')"),
    ),
)


def _near_the_bounds(format: str) -> Problem:
    """Ten classes, one of them ahead by 0 to 7: its label comes near the least loss, another label near the largest."""
    z = np.zeros((16, 10))
    z[:, 3] = np.arange(16) % 8
    return Problem(format, {"z": z, "y": np.repeat([3, 0], 8), "g": np.ones(16)})


softmax_twice_range = Identity(
    name="softmax_twice_range",
    statement=r"\log(1 + (K - 1)/e) \le -\log \mathrm{softmax}(\mathrm{softmax}(z))_y \le \log(e + K - 1)",
    source="the softmax lies in [0, 1]; for K = 10 the loss is never below 1.4612",
    domain=replace(LABELLED, edges=lambda format: [*LABELLED.edges(format), _near_the_bounds(format)]),
    spec=lambda p: [True for row in p.z],
    wrt=(),
    # Where one logit dominates, the loss stands at the end of the range to the last bit, and no comparison can be sure.
    regions=("tie", "core"),
    forms=(
        Form(
            "k = z.shape[dim]\n"
            "l = F.cross_entropy(F.softmax(z, dim), y, reduction='none')\n"
            "(l >= math.log(1 + (k - 1) / math.e)) & (l <= math.log(math.e + k - 1))",
            label="log(1 + (K - 1)/e) <= loss <= log(e + K - 1)",
        ),
    ),
)

softmax_before_cross_entropy = Pitfall(
    name="softmax_before_cross_entropy",
    statement="CrossEntropyLoss takes logits: a softmax before it is applied twice, and the loss can never reach 0",
    source="adam notebook, cells 104-116; torch.nn.CrossEntropyLoss documentation (unnormalized logits)",
    of=cross_entropy,
    mistake=Form("F.cross_entropy(F.softmax(z, dim), y, reduction='none')"),
    outcome=Differs(),
    when=_rows(0),
    relations=(softmax_twice, softmax_twice_range),
)

softmax_down_the_batch = Identity(
    name="softmax_down_the_batch",
    statement=r"\mathrm{softmax}_0(z)_{ni} = e^{z_{ni}} / \sum_m e^{z_{mi}}",
    source="dl2025 week 5, In [64]-[66]",
    domain=classes(out="RC", layouts=FLAT),
    spec=lambda p: [
        list(row) for row in zip(*(exact.softmax(column) for column in zip(*p.z, strict=True)), strict=True)
    ],
    out="RC",
    mixes_rows=True,
    forms=(Form("F.softmax(z, 0)"), Form("F.softmax(z.t(), 1).t()")),
)

softmax_over_dim_0 = Pitfall(
    name="softmax_over_dim_0",
    statement="a softmax over dimension 0 normalises each class over the batch: columns sum to 1, rows do not",
    source="dl2025 week 5, In [64]-[69]",
    of=softmax,
    mistake=Form("F.softmax(z, 0)", layouts=FLAT),
    outcome=Differs(),
    when=lambda problem: problem["z"].size > 1,
    relations=(softmax_down_the_batch,),
)

softmax_without_dim = Pitfall(
    name="softmax_without_dim",
    statement="without dim, softmax guesses (dimension 1 of a matrix) and warns",
    source="dl2025 week 5, In [70]-[72]; torch.nn.functional.softmax documentation",
    of=softmax,
    mistake=Form("F.softmax(z)", layouts=FLAT),
    outcome=Warns(UserWarning, "Implicit dimension choice for softmax has been deprecated"),
)

softmax_of_one_slice = Identity(
    name="softmax_of_one_slice",
    statement=r"\mathrm{softmax}_0(z_{1ni}) = 1",
    source="torch/nn/functional.py, _get_softmax_dim",
    domain=softmax_down_the_batch.domain,
    spec=lambda p: [[1 for _ in row] for row in p.z],
    out="RC",
    forms=(Form("F.softmax(z[None], 0)[0]"),),
)

softmax_without_dim_in_3d = Pitfall(
    name="softmax_without_dim_in_3d",
    statement="without dim, softmax of three dimensions guesses dimension 0, not the class dimension 1",
    source="torch/nn/functional.py, _get_softmax_dim",
    of=softmax,
    mistake=Form(
        "import warnings\nwith warnings.catch_warnings():\n    warnings.simplefilter('ignore')\n"
        "    s = F.softmax(z[None])\ns[0]",
        label="F.softmax(z[None])[0]",
        layouts=FLAT,
    ),
    outcome=Differs(),
    when=lambda problem: problem["z"].shape[1] > 1,
    relations=(softmax_of_one_slice,),
)

# --- nll_loss on what is no log-probability ----------------------------------------------------------------------

negative_probability = Identity(
    name="negative_probability",
    statement=r"\mathrm{nll}(\mathrm{softmax}(z), y) = -\mathrm{softmax}(z)_y",
    source="torch.nn.NLLLoss documentation (the input holds log-probabilities)",
    domain=LABELLED,
    spec=lambda p: [-exact.softmax(row)[y] for row, y in zip(p.z, p.y, strict=True)],
    forms=(
        Form("F.nll_loss(F.softmax(z, dim), y, reduction='none')"),
        Form("-F.softmax(z, dim).gather(dim, y.unsqueeze(dim)).squeeze(dim)"),
    ),
)

nll_loss_of_probabilities = Pitfall(
    name="nll_loss_of_probabilities",
    statement="nll_loss takes log-probabilities: of probabilities it gives minus the probability, without a word",
    source=LOG_SOFTMAX_NLL + "; ptm chapter 7.2.5",
    of=cross_entropy,
    mistake=Form("F.nll_loss(F.softmax(z, dim), y, reduction='none')"),
    outcome=Differs(),
    relations=(negative_probability,),
)

bce = Identity(
    name="bce_mean",
    statement=r"\frac{1}{N}\sum_n \mathrm{softplus}(z_n) - t_n z_n",
    source="torch.nn.BCEWithLogitsLoss documentation",
    domain=BINARY,
    spec=lambda p: exact.mean([h - t * z for h, t, z in zip(*hinges(p), p.z, strict=True)]),
    out="",
    forms=(
        Form("F.binary_cross_entropy_with_logits(z, t)"),
        Form("(F.softplus(z) - t * z).mean()"),
    ),
)

nll_loss_of_one_column = Pitfall(
    name="nll_loss_of_one_column",
    statement="nll_loss needs a column for every class: one column of probabilities has no class 1",
    source="dl2025 week 5, In [386]",
    of=bce,
    mistake=Form("F.nll_loss(torch.exp(F.logsigmoid(z))[:, None], t.long())"),
    outcome=Raises(IndexError, "Target 1 is out of bounds"),
    when=lambda problem: bool((problem["t"] == 1).any()),
)

# --- columns and labels ------------------------------------------------------------------------------------------

both_columns = Identity(
    name="both_columns",
    statement=r"\tfrac{1}{2}[\mathrm{bce}(s_1, y) + \mathrm{bce}(s_0, 1 - y)] = -\log s_y,"
    r" \quad s = \mathrm{softmax}(z)",
    source="dl2025 week 5, In [374]",
    domain=pairs(labels=True, layouts=FLAT),
    spec=loss,
    forms=(
        Form("F.cross_entropy(z, y, reduction='none')"),
        Form(
            "s, t = F.softmax(z, dim), y.to(z.dtype)\n"
            "(F.binary_cross_entropy(s[:, 1], t, reduction='none')"
            " + F.binary_cross_entropy(s[:, 0], 1 - t, reduction='none')) / 2",
            label="mean of BCE over both columns",
            regions=("extreme", "offset", "tie", "saturated", "core"),
        ),
    ),
)

both_columns_swapped = Identity(
    name="both_columns_swapped",
    statement=r"\tfrac{1}{2}[\mathrm{bce}(s_0, y) + \mathrm{bce}(s_1, 1 - y)] = -\log s_{1-y}",
    source="dl2025 week 5, In [374]",
    domain=both_columns.domain,
    spec=lambda p: [-exact.log_softmax(row)[1 - y] for row, y in zip(p.z, p.y, strict=True)],
    forms=(
        Form("F.cross_entropy(z, 1 - y, reduction='none')"),
        Form(
            "s, t = F.softmax(z, dim), y.to(z.dtype)\n"
            "(F.binary_cross_entropy(s[:, 0], t, reduction='none')"
            " + F.binary_cross_entropy(s[:, 1], 1 - t, reduction='none')) / 2",
            label="mean of BCE over the columns, swapped",
            regions=("extreme", "offset", "tie", "tail", "core"),
        ),
    ),
)

columns_swapped_in_bce = Pitfall(
    name="columns_swapped_in_bce",
    statement="column 1 is the probability of class 1: paired the other way, every label is flipped",
    source="dl2025 week 5, In [374] (0.6868 against 0.7154)",
    of=both_columns,
    mistake=both_columns_swapped.forms[1],
    outcome=Differs(),
    relations=(both_columns_swapped,),
)

# --- targets that PyTorch refuses --------------------------------------------------------------------------------

integer_one_hot = Pitfall(
    name="integer_one_hot",
    statement="one-hot targets are probabilities and must be floating point; F.one_hot gives integers",
    source="dl2025 week 5, In [87]-[88] (y_onehot.float())",
    of=cross_entropy,
    mistake=Form("F.cross_entropy(z, F.one_hot(y, z.shape[1]), reduction='none')"),
    outcome=Raises(RuntimeError, "Expected floating point type for target with class probabilities, got Long"),
)

floating_index = Pitfall(
    name="floating_index",
    statement="index targets must be integers",
    source="torch.nn.CrossEntropyLoss documentation, target dtype",
    of=cross_entropy,
    mistake=Form("F.cross_entropy(z, y.to(z.dtype), reduction='none')"),
    outcome=Raises(RuntimeError, "expected target dtype to be Long or Byte|expected scalar type Long"),
)

index_out_of_range = Pitfall(
    name="index_out_of_range",
    statement="index targets lie in [0, K)",
    source="torch.nn.CrossEntropyLoss documentation, target",
    of=cross_entropy,
    mistake=Form("F.cross_entropy(z, y + z.shape[1], reduction='none')"),
    outcome=Raises(IndexError, r"Target \d+ is out of bounds"),
)

binary_target_out_of_range = Pitfall(
    name="binary_target_out_of_range",
    statement="binary targets lie in [0, 1]",
    source="torch.nn.BCELoss documentation, target",
    of=bce,
    mistake=Form("F.binary_cross_entropy(torch.sigmoid(z), t + 1.5)"),
    outcome=Raises(RuntimeError, "all elements of target should be between 0 and 1"),
)

logits_into_bce = Pitfall(
    name="logits_into_bce",
    statement="BCELoss takes probabilities: it refuses logits outside [0, 1], and takes those inside for probabilities",
    source="torch.nn.BCELoss documentation, input",
    of=bce,
    mistake=Form("F.binary_cross_entropy(z, t)"),
    outcome=Raises(RuntimeError, "all elements of input should be between 0 and 1"),
    when=lambda problem: bool(((problem["z"] < 0) | (problem["z"] > 1)).any()),
)

two_devices = Pitfall(
    name="two_devices",
    statement="logits and targets must stand on one device",
    source="dl2025 week 5, In [750] (a model on cuda:0, data on the CPU)",
    of=cross_entropy,
    mistake=Form("F.cross_entropy(z, y.to('meta'), reduction='none')"),
    outcome=Raises(RuntimeError, "not on the expected device|on the same device|same device"),
)
