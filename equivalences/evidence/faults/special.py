"""Faults at special values: nan swallowed, masks forgotten, infinities made finite, nonsense taken without a word."""

from __future__ import annotations

from equivalences.catalogue import binary_options, cross_entropy, cross_entropy_options, distributions, sigmoid
from equivalences.catalogue import linear_cross_entropy as linear
from equivalences.catalogue import softmax as the
from equivalences.evidence.faults.fault import SpecialFault
from equivalences.evidence.faults.plant import gradient
from equivalences.findings.special_values.cross_entropy import CALL
from equivalences.findings.special_values.cross_entropy_options import SMOOTHED, SOFT, WEIGHTED
from equivalences.findings.special_values.distributions import BINARY, ENTROPY, LOG_PROB
from equivalences.findings.special_values.linear_cross_entropy import AT_ONCE, IN_CHUNKS

SOFTMAX, LOG_SOFTMAX, LOGSUMEXP = "F.softmax(z, 1)", "F.log_softmax(z, 1)", "torch.logsumexp(z, 1)"
NLL = "F.nll_loss(x, y, weight=weight, reduction=reduction)"
BCE = "F.binary_cross_entropy(p, t, reduction=reduction)"
BCE_LOGITS = "F.binary_cross_entropy_with_logits(z, t, reduction=reduction)"
MARGIN = "F.soft_margin_loss(z, t, reduction=reduction)"
MULTILABEL = "F.multilabel_soft_margin_loss(z, t, reduction=reduction)"
KL = "F.kl_div(x, t, reduction=reduction)"

_REDUCED = "rows if reduction == 'none' else getattr(torch, reduction)(rows)"
_RUNNING = "an online softmax: -inf - -inf until a class that is not masked comes"
_COUNTED = "rows if reduction == 'none' else rows.sum() / ({} if reduction == 'mean' else 1)"


def _maximum(classes: str, call: str) -> str:
    """`call`, where a running maximum that is still -inf after some classes is subtracted from itself.

    m - m is 0 in every other row, and its gradient is none: of a sound call nothing else changes.
    """
    return f"m = torch.logsumexp(z[:, {classes}], 1, keepdim=True).detach()\n" + call.replace("(z,", "(z + (m - m),")


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
    # --- masks ---
    SpecialFault("maximum starts at the first class", SOFTMAX, _maximum(":1", SOFTMAX), _RUNNING, the.softmax),
    SpecialFault("maximum starts at the first 16 classes", SOFTMAX, _maximum(":16", SOFTMAX), _RUNNING, the.softmax),
    SpecialFault("maximum starts at the first 128 classes", LOG_SOFTMAX, _maximum(":128", LOG_SOFTMAX), _RUNNING,
                 the.log_softmax),
    SpecialFault("maximum starts at the first 1024 classes", LOGSUMEXP, _maximum(":1024", LOGSUMEXP), _RUNNING,
                 the.logsumexp),
    SpecialFault("maximum starts at the first 32768 classes", CALL, _maximum(":32768", CALL), _RUNNING,
                 cross_entropy.cross_entropy_reduced),
    SpecialFault("a maximum for the first 64 classes", CALL, _maximum(":64", CALL),
                 "blocks are joined at the end, and one of them has no maximum", cross_entropy.cross_entropy_reduced),
    SpecialFault("a maximum for the last 16 classes", LOG_SOFTMAX, _maximum("-16:", LOG_SOFTMAX),
                 "blocks are joined at the end, and one of them has no maximum", the.log_softmax),
    SpecialFault("a maximum for the last 4096 classes", CALL, _maximum("-4096:", CALL),
                 "blocks are joined at the end, and one of them has no maximum", cross_entropy.cross_entropy_reduced),
    SpecialFault("a maximum for the block in the middle", CALL,
                 _maximum("z.shape[1] // 3:-(-2 * z.shape[1] // 3)", CALL),
                 "as that of the first block, which is guarded", cross_entropy.cross_entropy_reduced),
    SpecialFault("a maximum for every second class", CALL, _maximum("::2", CALL),
                 "two lanes share a row, and each has a maximum of its own", cross_entropy.cross_entropy_reduced),
    SpecialFault("a maximum for every second class", SOFTMAX,
                 _maximum("1::2", SOFTMAX) + " if z.shape[1] > 2 else " + SOFTMAX,
                 "two lanes share a row, and each has a maximum of its own", the.softmax),
    SpecialFault("distance from the second largest", SOFTMAX,
                 "top = z.topk(min(2, z.shape[1]), 1).values.detach()\n"
                 "F.softmax(z + 0 * (top - top[:, :1]).sum(1, keepdim=True), 1) if z.shape[1] > 2 else " + SOFTMAX,
                 "a row with one class left has none: inf times 0", the.softmax),
    SpecialFault("-10000 for -inf", LOGSUMEXP, LOGSUMEXP.replace("(z,", "(z.clamp(min=-10000),"),
                 "a finite mask, against inf - inf: other classes lie below it", the.logsumexp),
    SpecialFault("-10000 for -inf", CALL, CALL.replace("(z,", "(torch.where(z == -torch.inf, -10000.0, z),"),
                 "a finite mask, against inf - inf: other classes lie below it", cross_entropy.cross_entropy_reduced),
    SpecialFault("-10000 for -inf", SOFT, SOFT.replace("(z,", "(torch.where(z == -torch.inf, -10000.0, z),"),
                 "against 0 times inf: other classes lie below it",
                 cross_entropy_options.soft_cross_entropy_options_reduced),
    SpecialFault("masked with the lowest number", SOFTMAX,
                 "F.softmax(z.clamp(min=torch.finfo(z.dtype).min), 1)",
                 "against inf - inf: a row without any class is uniform", the.softmax),
    SpecialFault("a masked target loses 0", CALL,
                 "inside = y.clamp(0, z.shape[1] - 1)[:, None]\n"
                 "y = y.masked_fill(z.gather(1, inside)[:, 0] == -torch.inf, -100) if len(y) == len(z) else y\n" + CALL,
                 "against a loss of inf: such a row is taken for an ignored one", cross_entropy.cross_entropy_reduced),
    SpecialFault("no gradient is defined where masked", CALL,
                 gradient("torch.where(z == -torch.inf, 0 * z, g)", CALL),
                 "a backward pass that multiplies by the logits: 0 times -inf", cross_entropy.cross_entropy_reduced),
    SpecialFault("gradient of masked tiles never written", LOGSUMEXP,
                 gradient("torch.where((z == -torch.inf) & (z.shape[1] > 1024), torch.nan, g)", LOGSUMEXP),
                 "blocks without any class are skipped, in memory that nobody has cleared", the.logsumexp),
    SpecialFault("ignored rows multiplied by 0", CALL,
                 "inside = y.clamp(0, z.shape[1] - 1)[:, None]\n"
                 "rows = -F.log_softmax(z, 1).gather(1, inside)[:, 0] * (y != -100)\n"
                 + _COUNTED.format("(y != -100).sum()"),
                 "a row of -inf loses nan, and 0 times nan is no 0", cross_entropy.cross_entropy_reduced),
)  # fmt: skip
