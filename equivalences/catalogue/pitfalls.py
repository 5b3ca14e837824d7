"""Pitfalls: what looks equal to an identity and is not, and the identity that the mistake does satisfy."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from equivalences import exact
from equivalences.catalogue.cross_entropy import cross_entropy, loss
from equivalences.catalogue.softmax import softmax
from equivalences.model import Differs, Form, Identity, Pitfall, Problem, Raises, Warns
from equivalences.problems.classes import classes, pairs
from equivalences.problems.scalars import scalars

FLAT = ("contiguous", "strided")
LABELLED = classes(labels=True, layouts=FLAT)
MEAN = classes(labels=True, out="", reduction=("mean",), layouts=FLAT)
WEIGHTED = classes(labels=True, weight=True, out="", reduction=("mean",), layouts=FLAT)
BINARY = scalars(target="index", out="", reduction=("mean",), layouts=FLAT)

LOG_SOFTMAX_NLL = "CrossEntropyLoss = LogSoftmax + NLLLoss"


def _rows(count: int) -> Any:
    """More than `count` rows and more than one class: what most mistakes need to show."""
    return lambda problem: problem["z"].shape[0] > count and problem["z"].shape[-1] > 1


def _positive(p: Any) -> list[int]:
    return [exact.argmax([0, z]) for z in p.z]


def _hinges(p: Any) -> tuple[list[Any], list[Any]]:
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
    spec=lambda p: exact.mean([h - t * z for h, t, z in zip(*_hinges(p), p.z, strict=True)]),
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

# --- pairing, weights, broadcasting, averages --------------------------------------------------------------------

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

weighted_mean_by_index = Identity(
    name="weighted_mean_by_index",
    statement=r"\sum_n w_{y_n} \ell_n / \sum_n w_{y_n}",
    source="torch.nn.CrossEntropyLoss documentation, class indices, reduction mean",
    domain=WEIGHTED,
    spec=loss,
    out="",
    forms=(Form("F.cross_entropy(z, y, weight)"), Form("nn.CrossEntropyLoss(weight)(z, y)")),
)

weighted_mean_by_one_hot = Identity(
    name="weighted_mean_by_one_hot",
    statement=r"\sum_n w_{y_n} \ell_n / N",
    source="torch.nn.CrossEntropyLoss documentation, class probabilities, reduction mean; #107680",
    domain=WEIGHTED,
    spec=lambda p: exact.mean([-p.weight[y] * exact.log_softmax(row)[y] for row, y in zip(p.z, p.y, strict=True)]),
    out="",
    forms=(
        Form("F.cross_entropy(z, F.one_hot(y, z.shape[1]).to(z.dtype), weight)"),
        Form("F.cross_entropy(z, y, weight, reduction='sum') / len(z)"),
        Form("F.cross_entropy(z, y, weight, reduction='none').mean()"),
    ),
)

weighted_mean_of_one_hot_targets = Pitfall(
    name="weighted_mean_of_one_hot_targets",
    statement="with class weights, the mean divides by the total weight for index targets and by N for one-hot ones",
    source="#107680",
    of=weighted_mean_by_index,
    mistake=weighted_mean_by_one_hot.forms[0],
    outcome=Differs(),
    when=lambda problem: float(problem["weight"][problem["y"]].sum()) != len(problem["y"]),
    relations=(weighted_mean_by_one_hot,),
)

broadcast_loss = Identity(
    name="broadcast_loss",
    statement=r"\frac{1}{N^2} \sum_{n,m} \mathrm{softplus}(z_n) - t_m z_n = \mathrm{bce}(z, \bar t)",
    source="broadcasting semantics of torch: (n, 1) with (n,) is (n, n)",
    domain=BINARY,
    spec=lambda p: exact.mean([h - exact.mean(p.t) * z for h, z in zip(_hinges(p)[0], p.z, strict=True)]),
    out="",
    forms=(
        Form("(F.softplus(z) - t.mean() * z).mean()"),
        Form("F.binary_cross_entropy_with_logits(z, t.mean().expand(z.shape))"),
        Form(
            "s = torch.sigmoid(z)[:, None]\n-(t * torch.log(s) + (1 - t) * torch.log(1 - s)).mean()",
            regions=("core", "wide"),
        ),
    ),
)


loss_of_column_and_row = Pitfall(
    name="loss_of_column_and_row",
    statement="a manual loss of (n, 1) outputs and (n,) targets broadcasts to (n, n): all rows get the mean label",
    source="dl2025 week 5, section 6 (targets are reshaped to (n, 1) there)",
    of=bce,
    mistake=broadcast_loss.forms[2],
    outcome=Differs(),
    when=lambda problem: len(set(problem["t"].tolist())) > 1,
    relations=(broadcast_loss,),
)

loss_function_of_column_and_row = Pitfall(
    name="loss_function_of_column_and_row",
    statement="BCEWithLogitsLoss refuses (n, 1) outputs with (n,) targets, where a manual loss broadcasts",
    source="torch.nn.BCEWithLogitsLoss documentation (target: same shape as the input)",
    of=bce,
    mistake=Form("F.binary_cross_entropy_with_logits(z[:, None], t)"),
    outcome=Raises(ValueError, "must be the same (size )?as (the )?input"),
)

accuracy = Identity(
    name="accuracy",
    statement=r"\frac{1}{N} \sum_n [\,[z_n > 0] = t_n]",
    source="dl2025 week 5, section 6A",
    domain=BINARY,
    spec=lambda p: exact.mean([int(s == int(t)) for s, t in zip(_positive(p), _labels(p), strict=True)]),
    out="",
    wrt=(),
    forms=(
        Form("((z > 0) == t).to(z.dtype).mean()"),
        Form("((torch.sigmoid(z) > 0.5) == t).to(z.dtype).mean()", regions=("core", "wide")),
    ),
)

broadcast_accuracy = Identity(
    name="broadcast_accuracy",
    statement=r"p q + (1 - p)(1 - q), \quad p = \text{share predicted positive}, q = \text{share labelled positive}",
    source="broadcasting semantics of torch: (n, 1) with (n,) is (n, n)",
    domain=BINARY,
    spec=lambda p: (lambda a, b: (a * b + (len(p.t) - a) * (len(p.t) - b)) / (exact.total([1]) * len(p.t) ** 2))(
        sum(_positive(p)), sum(_labels(p))
    ),
    out="",
    wrt=(),
    forms=(Form("((z > 0)[:, None] == t).to(z.dtype).mean()"),),
)


def _labels(p: Any) -> list[int]:
    return [exact.argmax([0, t]) for t in p.t]


def _hits(problem: Problem) -> tuple[float, float]:
    """The accuracy, and what broadcasting makes of it."""
    said, true = problem["z"] > 0, problem["t"] > 0
    return float((said == true).mean()), float((said[:, None] == true).mean())


accuracy_of_column_and_row = Pitfall(
    name="accuracy_of_column_and_row",
    statement="comparing (n, 1) predictions with (n,) labels counts all n^2 pairs: the accuracy of independent guesses",
    source="dl2025 week 5, In [182] (argmax of shape (n,) against yy of shape (n, 1))",
    of=accuracy,
    mistake=broadcast_accuracy.forms[0],
    outcome=Differs(),
    when=lambda problem: np.subtract(*_hits(problem)) != 0,
    relations=(broadcast_accuracy,),
)

mean_of_batch_means = Identity(
    name="mean_of_batch_means",
    statement=r"\frac{1}{B} \sum_b \frac{1}{n_b} \sum_{n \in b} \ell_n",
    source="adam notebook, cell 114 (running_loss / len(train_loader))",
    domain=MEAN,
    spec=lambda p: (lambda rows: exact.mean([exact.mean(rows[i : i + 4]) for i in range(0, len(rows), 4)]))(
        [-exact.log_softmax(row)[y] for row, y in zip(p.z, p.y, strict=True)]
    ),
    out="",
    forms=(
        Form("torch.stack([F.cross_entropy(a, b) for a, b in zip(z.split(4), y.split(4))]).mean()"),
        Form("sum(F.cross_entropy(a, b) for a, b in zip(z.split(4), y.split(4))) / -(-len(z) // 4)"),
    ),
)

mean_of_rows = Identity(
    name="mean_of_rows",
    statement=r"\frac{1}{N} \sum_b n_b \bar\ell_b = \frac{1}{N} \sum_n \ell_n",
    source="torch.nn.CrossEntropyLoss documentation, reduction mean",
    domain=MEAN,
    spec=loss,
    out="",
    forms=(
        Form("F.cross_entropy(z, y)"),
        Form("sum(F.cross_entropy(a, b) * len(b) for a, b in zip(z.split(4), y.split(4))) / len(z)"),
        Form("sum(F.cross_entropy(a, b, reduction='sum') for a, b in zip(z.split(4), y.split(4))) / len(z)"),
    ),
)

uneven_last_batch = Pitfall(
    name="uneven_last_batch",
    statement="the mean of batch means is not the mean where the last batch is smaller (12,665 = 791 x 16 + 9 rows)",
    source="adam notebook, cell 114; dl2025 week 5, section 6D (12,665 rows in batches of 16)",
    of=mean_of_rows,
    mistake=mean_of_batch_means.forms[0],
    outcome=Differs(),
    when=lambda problem: len(problem["y"]) > 4 and len(problem["y"]) % 4 != 0 and problem["z"].shape[1] > 1,
    relations=(mean_of_batch_means, mean_of_rows),
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
