"""Special values of kl_div, Categorical and Bernoulli."""

from __future__ import annotations

from functools import partial
from math import inf, nan

from equivalences.findings.model import Deviation, Gives, SpecialValue
from equivalences.findings.special_values.cross_entropy import OUT_OF_BOUNDS
from equivalences.findings.special_values.softmax import DOCS, LATER, OLDEST, SEEN
from equivalences.model import Raises

_kl = partial(
    SpecialValue, "kl_div", call="F.kl_div(x, t, reduction=reduction)", source=DOCS + "torch.nn.KLDivLoss.html"
)
_page = "https://docs.pytorch.org/docs/stable/distributions.html"
_categorical = partial(SpecialValue, "Categorical", source=_page)
_bernoulli = partial(SpecialValue, "Bernoulli", source=_page)

NONE, SUM, MEAN, BATCH = ({"reduction": reduction} for reduction in ("none", "sum", "mean", "batchmean"))
UNCHECKED = "dynamo switches the validation of distributions off"
LOG_PROB = "torch.distributions.Categorical(logits=z).log_prob(y)"
ENTROPY = "torch.distributions.Categorical(logits=z).entropy()"
DIVERGENCE = (
    "Categorical = torch.distributions.Categorical\ntorch.distributions.kl_divergence(Categorical(p), Categorical(q))"
)
BINARY = "torch.distributions.Bernoulli(logits=z).log_prob(t)"

TABLE = (
    # --- kl_div: log-probabilities x, probabilities t ---
    _kl("target 0", items={"x": [-8.0], "t": [0.0], **NONE}, outcome=Gives([0], [0]), why="0 log 0 = 0"),
    _kl(
        "target 0 for -inf",
        items={"x": [-inf], "t": [0.0], **NONE},
        outcome=Gives([0], [0]),
        why="limit: a class that neither has",
        deviations=(Deviation(Gives([nan], [0]), "", "0 * -inf", seen=SEEN),),
    ),
    _kl("target 1 for -inf", items={"x": [-inf], "t": [1.0], **NONE}, outcome=Gives([inf], [-1]), why="limit"),
    _kl("target nan", items={"x": [-8.0], "t": [nan], **NONE}, outcome=Gives([nan], [nan]), why="nan is passed on"),
    _kl(
        "a negative target",
        items={"x": [-8.0], "t": [-1.0], **NONE},
        outcome=Gives([nan], [1]),
        why="the logarithm of a negative number (issue 69230)",
    ),
    _kl(
        "target 0 as a logarithm",
        call="F.kl_div(x, t, reduction=reduction, log_target=True)",
        items={"x": [-8.0], "t": [-inf], **NONE},
        outcome=Gives([0], [0]),
        why="0 log 0 = 0",
        deviations=(Deviation(Gives([nan], [0]), "", "exp(-inf) * -inf", seen=SEEN),),
    ),
    _kl(
        "nothing, batchmean",
        items={"x": [[], []], "t": [[], []], **BATCH},
        outcome=Gives(0, [[], []]),
        why="an empty sum, divided by 2 rows",
    ),
    _kl("nothing, sum", items={"x": [], "t": [], **SUM}, outcome=Gives(0, []), why="an empty sum"),
    # --- Categorical ---
    _categorical(
        "a logit -inf",
        call=LOG_PROB,
        items={"z": [[0.0, -inf]], "y": [1]},
        outcome=Gives([-inf], [[-1, 1]]),
        why="limit",
    ),
    _categorical(
        "another logit -inf",
        call=LOG_PROB,
        items={"z": [[0.0, -inf]], "y": [0]},
        outcome=Gives([0], [[0, 0]]),
        why="limit",
    ),
    _categorical(
        "a logit nan",
        call=LOG_PROB,
        items={"z": [[0.0, nan]], "y": [0]},
        outcome=Raises(ValueError, "Expected parameter logits"),
        why="no distribution",
        deviations=(Deviation(Gives([nan], [[nan, nan]]), "", UNCHECKED, modes=("compiled",), seen=SEEN),),
    ),
    _categorical(
        "every logit -inf",
        call=LOG_PROB,
        items={"z": [[-inf, -inf]], "y": [0]},
        outcome=Raises(ValueError, "Expected parameter logits"),
        why="no distribution",
        deviations=(Deviation(Gives([nan], [[nan, nan]]), "", UNCHECKED, modes=("compiled",), seen=SEEN),),
    ),
    _categorical(
        "a class that is not there",
        call=LOG_PROB,
        items={"z": [[0.0, 1.0]], "y": [2]},
        outcome=Raises(ValueError, "Expected value argument"),
        why="outside the support",
        deviations=(OUT_OF_BOUNDS,),
    ),
    _categorical(
        "a negative class",
        call=LOG_PROB,
        items={"z": [[0.0, 1.0]], "y": [-1]},
        outcome=Raises(ValueError, "Expected value argument"),
        why="outside the support",
        deviations=(OUT_OF_BOUNDS,),
    ),
    _categorical(
        "entropy, a logit -inf",
        call=ENTROPY,
        items={"z": [[0.0, -inf]]},
        outcome=Gives([0], [[0, 0]]),
        why="limit: 0 log 0 = 0 (issue 40553)",
    ),
    _categorical(
        "probabilities all 0",
        call="torch.distributions.Categorical(probs=p).log_prob(y)",
        items={"p": [[0.0, 0.0]], "y": [0]},
        outcome=Raises(ValueError, "Expected parameter probs"),
        why="no distribution",
        deviations=(Deviation(Gives([nan], [[nan, nan]]), "", UNCHECKED, modes=("compiled",), seen=SEEN),),
    ),
    _categorical(
        "a negative probability",
        call="torch.distributions.Categorical(probs=p).log_prob(y)",
        items={"p": [[1.5, -0.5]], "y": [0]},
        outcome=Raises(ValueError, "Expected parameter probs"),
        why="no distribution",
        formats=("float32",),
        deviations=(
            Deviation(Gives([-1.1920930376163597e-07], [[0, 0]]), "", UNCHECKED, modes=("compiled",), seen=OLDEST),
            Deviation(Gives([-1.1920928955078125e-07], [[0, 0]]), "", UNCHECKED, modes=("compiled",), seen=LATER),
        ),
    ),
    _categorical(
        "kl_divergence, a class that neither has",
        call=DIVERGENCE,
        items={"p": [[1.0, 0.0]], "q": [[1.0, 0.0]]},
        outcome=Gives([0]),
        why="limit: 0 log 0 = 0",
    ),
    _categorical(
        "kl_divergence, a class that only the first has",
        call=DIVERGENCE,
        items={"p": [[0.5, 0.5]], "q": [[1.0, 0.0]]},
        outcome=Gives([inf]),
        why="limit",
    ),
    # --- Bernoulli ---
    _bernoulli(
        "+inf for 1",
        call=BINARY,
        items={"z": [inf], "t": [1.0]},
        outcome=Gives([0], [0]),
        why="limit",
        deviations=(
            Deviation(
                Gives([nan], [0]),
                "https://github.com/pytorch/pytorch/issues/135359",
                "binary_cross_entropy_with_logits",
                seen=SEEN,
            ),
        ),
    ),
    _bernoulli("+inf for 0", call=BINARY, items={"z": [inf], "t": [0.0]}, outcome=Gives([-inf], [-1]), why="limit"),
    _bernoulli(
        "a logit nan",
        call=BINARY,
        items={"z": [nan], "t": [1.0]},
        outcome=Raises(ValueError, "Expected parameter logits"),
        why="no distribution",
        deviations=(Deviation(Gives([nan], [nan]), "", UNCHECKED, modes=("compiled",), seen=SEEN),),
    ),
    _bernoulli(
        "neither 0 nor 1",
        call=BINARY,
        items={"z": [1000.0], "t": [2.0]},
        outcome=Raises(ValueError, "Expected value argument"),
        why="outside the support",
        deviations=(
            Deviation(
                Gives([1000], [1]),
                "",
                UNCHECKED + ": a logarithm of a probability above 0",
                modes=("compiled",),
                seen=SEEN,
            ),
        ),
    ),
    _bernoulli(
        "a probability above 1",
        call="torch.distributions.Bernoulli(p).log_prob(t)",
        items={"p": [1.5], "t": [1.0]},
        outcome=Raises(ValueError, "Expected parameter probs"),
        why="no probability",
        formats=("float32",),
        deviations=(Deviation(Gives([-1.192093321833454e-07], [0]), "", UNCHECKED, modes=("compiled",), seen=SEEN),),
    ),
    _bernoulli(
        "probability 0 for 1",
        call="torch.distributions.Bernoulli(p).log_prob(t)",
        items={"p": [0.0], "t": [1.0]},
        outcome=Gives([-inf]),
        why="limit",
        deviations=(
            Deviation(
                Gives([-15.942384719848633], [0]),
                "https://github.com/pytorch/pytorch/issues/186825",
                "moved to the smallest distance from 1",
                seen=SEEN,
            ),
        ),
        formats=("float32",),
    ),
    _bernoulli(
        "entropy at +inf",
        call="torch.distributions.Bernoulli(logits=z).entropy()",
        items={"z": [inf]},
        outcome=Gives([0], [0]),
        why="limit: 0 log 0 = 0",
        deviations=(
            Deviation(
                Gives([nan], [nan]),
                "https://github.com/pytorch/pytorch/issues/135359",
                "binary_cross_entropy_with_logits",
                seen=SEEN,
            ),
        ),
    ),
)
