"""Faults at special values: nan swallowed, infinities made finite, empty sums mended, nonsense taken without a word."""

from __future__ import annotations

from equivalences.catalogue import binary_options, cross_entropy, cross_entropy_options, distributions, sigmoid
from equivalences.catalogue import linear_cross_entropy as linear
from equivalences.catalogue import softmax as the
from equivalences.faults.plant import gradient
from equivalences.model import SpecialFault
from equivalences.special_values.cross_entropy import CALL
from equivalences.special_values.cross_entropy_options import SMOOTHED, SOFT, WEIGHTED
from equivalences.special_values.distributions import BINARY, ENTROPY, LOG_PROB
from equivalences.special_values.linear_cross_entropy import AT_ONCE, IN_CHUNKS

SOFTMAX, LOG_SOFTMAX, LOGSUMEXP = "F.softmax(z, 1)", "F.log_softmax(z, 1)", "torch.logsumexp(z, 1)"
NLL = "F.nll_loss(x, y, weight=weight, reduction=reduction)"
BCE = "F.binary_cross_entropy(p, t, reduction=reduction)"
BCE_LOGITS = "F.binary_cross_entropy_with_logits(z, t, reduction=reduction)"
MARGIN = "F.soft_margin_loss(z, t, reduction=reduction)"
MULTILABEL = "F.multilabel_soft_margin_loss(z, t, reduction=reduction)"
KL = "F.kl_div(x, t, reduction=reduction)"

_REDUCED = "rows if reduction == 'none' else getattr(torch, reduction)(rows)"
_COUNTED = "rows if reduction == 'none' else rows.sum() / ({} if reduction == 'mean' else 1)"

FAULTS = (
    SpecialFault("nan swallowed", SOFTMAX, "F.softmax(z, 1).nan_to_num()",
                 "a row without any class gets no weight at all, as in attention", the.softmax),
    SpecialFault("gradient cleared of nan", SOFTMAX, gradient("g.nan_to_num()", SOFTMAX),
                 "against a training that diverges: a hook", the.softmax),
    SpecialFault("masked with the lowest number", LOG_SOFTMAX,
                 "F.log_softmax(z.clamp(min=torch.finfo(z.dtype).min), 1)",
                 "against inf - inf: a class that cannot be becomes one that may", the.log_softmax),
    SpecialFault("shift not guarded", LOGSUMEXP,
                 "m = z.amax(1, keepdim=True)\ntorch.log(torch.exp(z - m).sum(1)) + m[:, 0]",
                 "the textbook's formula: inf - inf, and no maximum of nothing", the.logsumexp),
    SpecialFault("straight through", "torch.sigmoid(z)",
                 "s = torch.sigmoid(z).detach()\ns + (z - z.detach()) * (s * (1 - s))",
                 "a gradient by hand: z - z is 0 but for what is infinite", sigmoid.sigmoid),
    SpecialFault("infinite logits made finite", "F.logsigmoid(z)", "F.logsigmoid(z.nan_to_num())",
                 "against inf - inf: nan becomes 0 as well", sigmoid.logsigmoid),
    SpecialFault("mirrored", "F.softplus(z)", "z + F.softplus(-z)", "it holds but for -inf + inf", sigmoid.softplus),
    # --- cross entropy ---
    SpecialFault("nothing counted loses 0", CALL,
                 f"0 * z.sum() if reduction == 'mean' and (y == -100).all() else {CALL}",
                 "against a division by zero", cross_entropy.cross_entropy_reduced),
    SpecialFault("labels clamped into range", CALL,
                 "y = torch.where(y == -100, y, y.clamp(0, z.shape[1] - 1))\n" + CALL,
                 "no kernel may read beyond its row: instead of an error, another class",
                 cross_entropy.cross_entropy_reduced),
    SpecialFault("every negative label ignored", CALL,
                 f"y = y.masked_fill(y < 0, -100)\n{CALL}",
                 "-1 for padding, and -2 for a mistake", cross_entropy.cross_entropy_reduced),
    SpecialFault("rows of loss inf left out", CALL,
                 "rows = F.cross_entropy(z, y, reduction='none')\nkept = rows.isfinite() & (y != -100)\n"
                 "rows[kept].mean() if reduction == 'mean' and kept.any() else " + CALL,
                 "one bad row shall not spoil the mean", cross_entropy.cross_entropy_reduced),
    SpecialFault("0 times the logits", CALL, f"{CALL} + 0 * z.sum()",
                 "to keep a parameter that is not used in the graph", cross_entropy.cross_entropy_reduced),
    SpecialFault("one class is a binary problem", CALL,
                 "F.binary_cross_entropy_with_logits(z[:, 0], y.to(z.dtype), reduction=reduction) "
                 f"if z.shape[1] == 1 else {CALL}",
                 "one function for both", cross_entropy.cross_entropy_reduced),
    SpecialFault("smallest number beside the total weight", WEIGHTED,
                 "rows = F.cross_entropy(z, y, weight=weight, reduction='none')\n"
                 "w = z.new_ones(z.shape[1]) if weight is None else weight\n"
                 + _COUNTED.format("(w[y.relu()] * (y != -100)).sum() + torch.finfo(z.dtype).tiny"),
                 "against a division by zero", cross_entropy_options.cross_entropy_options_reduced),
    SpecialFault("masked classes are not smoothed", SMOOTHED,
                 "x = F.log_softmax(z, 1)\n"
                 "smooth = -x.masked_fill(x.isinf(), 0).mean(1).masked_fill(y == -100, 0)\n"
                 "rows = 0.5 * F.nll_loss(x, y, reduction='none') + 0.5 * smooth\n"
                 + _COUNTED.format("(y != -100).sum()"),
                 "against a loss of inf", cross_entropy.cross_entropy_reduced),
    SpecialFault("range of smoothing not checked", CALL.replace("reduction=", "label_smoothing=1.5, reduction="),
                 f"-0.5 * {CALL} - 1.5 * F.log_softmax(z, 1).mean(1)", "the formula as it stands"),
    SpecialFault("classes of probability 0 left out", SOFT,
                 "rows = -torch.where(p > 0, p * F.log_softmax(z, 1), 0).sum(1)\n" + _REDUCED,
                 "against 0 times inf: nan is not above 0, either",
                 cross_entropy_options.soft_cross_entropy_options_reduced),
    SpecialFault("labels wrap around", NLL, NLL.replace("y,", "torch.where(y == -100, y, y % x.shape[1]),"),
                 "as an index of Python does"),
    SpecialFault("nothing counted loses 0", AT_ONCE,
                 "rows = F.cross_entropy(F.linear(x, W), y, reduction='none')\n"
                 + _COUNTED.format("(y != -100).sum().clamp(min=1)"),
                 "against a division by zero", linear.linear_cross_entropy),
    SpecialFault("labels of no chunk ignored", IN_CHUNKS,
                 IN_CHUNKS.replace("y,", "torch.where((y >= 0) & (y < len(W)), y, -100),"),
                 "each part of the vocabulary leaves the labels of others to them"),  # no gradcheck: one backward pass
    # --- binary ---
    SpecialFault("not validated", BCE,
                 "rows = -(t * p.log().clamp(min=-100) + (1 - t) * (1 - p).log().clamp(min=-100))\n" + _REDUCED,
                 "the formula by hand"),
    SpecialFault("infinite logits made finite", BCE_LOGITS, BCE_LOGITS.replace("z,", "z.nan_to_num(),"),
                 "against inf - inf: nan becomes 0 as well", binary_options.binary_cross_entropy_reduced),
    SpecialFault("no row loses 0", BCE_LOGITS, f"{BCE_LOGITS} if len(z) else z.sum()",
                 "the last batch may be empty", binary_options.binary_cross_entropy_reduced),
    SpecialFault("exponents clamped", MARGIN,
                 "rows = torch.log1p(torch.exp((-t * z).clamp(max=10)))\n" + _REDUCED,
                 "against overflow", binary_options.soft_margin_loss_reduced),
    SpecialFault("no class loses 0", MULTILABEL,
                 "rows = F.binary_cross_entropy_with_logits(z, t, reduction='none').sum(1) / max(z.shape[1], 1)\n"
                 + _REDUCED, "against a division by zero"),
    # --- distributions ---
    SpecialFault("0 log 0 guarded", KL,
                 "rows = torch.where(t > 0, t * (t.log() - x), 0)\n"
                 f"rows.sum() / len(rows) if reduction == 'batchmean' else {_REDUCED}",
                 "nan is not above 0, and a negative target neither"),
    SpecialFault("not validated", LOG_PROB, LOG_PROB.replace("logits=z", "logits=z, validate_args=False"),
                 "it costs time", distributions.multinomial_nll),
    SpecialFault("entropy as it stands", ENTROPY, "x = F.log_softmax(z, 1)\n-(x.exp() * x).sum(1)", "0 times -inf"),
    SpecialFault("not validated", BINARY, BINARY.replace("logits=z", "logits=z, validate_args=False"),
                 "it costs time"),
)  # fmt: skip
