"""Faults of cross entropy with options, and of an affine layer."""

from __future__ import annotations

from equivalences.catalogue import cross_entropy_options as the
from equivalences.catalogue import linear_cross_entropy as of_layer
from equivalences.catalogue.cross_entropy_options import INDEX, KEPT, REDUCED, SOFT
from equivalences.evidence.faults.fault import Fault
from equivalences.evidence.faults.plant import BOTH, GRADIENT, MEAN, gradient, upstream, value
from equivalences.model import Form

CE = f"F.cross_entropy(z, y, {INDEX}, reduction=reduction)"
LINEAR = "F.cross_entropy(F.linear(x, W, b), y, weight, ignore_index=ignore_index, reduction=reduction)"
_ROWS = f"{KEPT}rows = F.cross_entropy(z, y, {INDEX}, reduction='none')\n"
_UNIFORM = (
    "uniform = F.cross_entropy(z, torch.ones_like(z), weight, reduction='none')\n"
    "uniform = uniform * (label_smoothing / z.shape[dim])\n"
)
_LABELLED = "labelled = F.cross_entropy(z, y, weight, ignore_index=ignore_index, reduction='none')\n"

FAULTS = (
    Fault("smoothing mass over K - 1", the.cross_entropy_options,
          Form(KEPT + "k = z.shape[dim]\nt = F.one_hot(label, k).movedim(-1, dim).to(z.dtype)\n"
               "q = (t * (1 - label_smoothing) + (1 - t) * label_smoothing / max(1, k - 1)) * kept.unsqueeze(dim)\n"
               "F.cross_entropy(z, q, weight, reduction='none')"), BOTH,
          "the smoothing goes to the other classes alone, as in some papers"),
    Fault("smoothing not taken from the label", the.cross_entropy_options,
          Form(_LABELLED + KEPT + _UNIFORM + "labelled + uniform.masked_fill(~kept, 0)"), BOTH, "1 for 1 - alpha"),
    Fault("smoothing of ignored rows", the.cross_entropy_options,
          Form(_LABELLED + _UNIFORM + "(1 - label_smoothing) * labelled + uniform"), BOTH,
          "the uniform term is not masked: padding learns to be uniform"),
    Fault("ignored rows unmasked", the.cross_entropy_options,
          Form(KEPT + "F.cross_entropy(z, label, weight, label_smoothing=label_smoothing, reduction='none')"), BOTH,
          "the label is made valid, and the mask forgotten"),
    Fault("gradient of ignored rows", the.cross_entropy_options,
          Form(KEPT + "l = torch.logsumexp(z, dim) * (~kept)\n"
               f"F.cross_entropy(z, y, {INDEX}, reduction='none') + (l - l.detach())"), GRADIENT,
          "masked in the value, not in the backward pass"),
    Fault("ignore_index taken for -100", the.cross_entropy_options,
          Form("F.cross_entropy(z, torch.where((y < 0) & (y != ignore_index), 0, torch.where(y == -1, -100, y)), "
               "weight, "
               "label_smoothing=label_smoothing, reduction='none')"), BOTH,
          "an ignored class of its own, as in segmentation, is trained"),
    Fault("no weights in the smoothing", the.cross_entropy_options,
          Form(_LABELLED + KEPT + _UNIFORM.replace("weight",
          "None") + "(1 - label_smoothing) * labelled + uniform.masked_fill(~kept, 0)"),
          BOTH, "the uniform target is not weighted"),
    Fault("weight of the label for the whole row", the.cross_entropy_options,
          Form(f"{KEPT}rows = F.cross_entropy(z, y, ignore_index=ignore_index, label_smoothing=label_smoothing, "
               f"reduction='none')\n"
               "rows if weight is None else rows * weight[label]"), BOTH, "smoothed rows are weighted as a whole"),
    Fault("weights squared", the.cross_entropy_options,
          Form("F.cross_entropy(z, y, None if weight is None else weight * weight, ignore_index=ignore_index, "
               "label_smoothing=label_smoothing, reduction='none')"), BOTH, "applied by the model and by the loss"),
    Fault("scaled by 1 + 32 u", the.cross_entropy_options, Form(value("v * (1 + 32 * u)", CE)), BOTH,
          "a small systematic error"),
    Fault("upstream ignored", the.cross_entropy_options, Form(upstream("torch.ones_like(g)", CE)), GRADIENT,
          "without grad_output"),
    # --- reduced ---
    Fault("N in place of the kept count", the.cross_entropy_options_reduced,
          Form(f"{_ROWS}mass = y.numel() if weight is None else (weight[label] * kept).sum()\n{MEAN}"), BOTH,
          "padding counts in the mean"),
    Fault("kept count in place of the total weight", the.cross_entropy_options_reduced,
          Form(f"{_ROWS}mass = kept.sum()\n{MEAN}"), BOTH, "weighted loss, unweighted mean"),
    Fault("total weight of all rows", the.cross_entropy_options_reduced,
          Form(f"{_ROWS}mass = y.numel() if weight is None else weight[label].sum()\n{MEAN}"), BOTH,
          "the weight of ignored rows' placeholder counts"),
    Fault("normaliser wrong with weights and smoothing", the.cross_entropy_options_reduced,
          Form(f"{_ROWS}both = weight is not None and label_smoothing > 0\n"
               "mass = kept.sum() if weight is None or both else (weight[label] * kept).sum()\n" + MEAN), BOTH,
          "one combination of options has a path of its own"),
    Fault("wrong in one combination of options", the.cross_entropy_options_reduced,
          Form("once = weight is None and label_smoothing > 0 and reduction == 'mean' and (y != ignore_index).all()\n"
               f"{CE} * (1 + once)"), BOTH, "a path taken without weights, smoothed, as a mean, of batches unpadded"),
    Fault("normaliser of smoothed weights", the.cross_entropy_options_reduced,
          Form(f"{_ROWS}a = label_smoothing\nmass = kept.sum() if weight is None else "
               "(((1 - a) * weight[label] + a * weight.mean()) * kept).sum()\n" + MEAN), BOTH,
          "the mean by the weights of the smoothed targets: reasonable, and another function"),
    Fault("sum divided", the.cross_entropy_options_reduced, Form(f"F.cross_entropy(z, y, {INDEX}, reduction='mean')"),
          BOTH, "mean for sum"),
    Fault("smoothing before masking", the.cross_entropy_options_reduced,
          Form(_LABELLED + KEPT + _UNIFORM + "rows = (1 - label_smoothing) * labelled + uniform\n" + REDUCED), BOTH,
          "ignored rows keep their uniform term, and are not counted"),
    Fault("gradient by N", the.cross_entropy_options_reduced,
          Form(KEPT + "n = kept.sum() / y.numel() if reduction == 'mean' else 1.0\n" + gradient("g * n", CE)), GRADIENT,
          "the backward pass divides by N, the forward pass by the kept count"),
    Fault("-100 trained where there is no other option", the.cross_entropy_options_reduced,
          Form(f"{KEPT}plain = weight is None and label_smoothing == 0 and reduction == 'sum'\n"
               f"plain = plain and ignore_index == -100\n"
               f"F.cross_entropy(z, label, reduction='sum') if plain else {CE}"), BOTH,
          "a fast path for the plainest batch, and padded ones take it"),
    Fault("ignore_index 0 taken for none, with weights", the.cross_entropy_options_reduced,
          Form("none = not ignore_index and weight is not None and label_smoothing == 0\n"
               f"{CE.replace('ignore_index=ignore_index', 'ignore_index=-100 if none else ignore_index')}"), BOTH,
          "`if ignore_index:` in one path of several"),
    Fault("weights forgotten without a batch", the.cross_entropy_options_reduced,
          Form("w = None if z.dim() == 1 and label_smoothing > 0 and reduction == 'sum' else weight\n"
               + CE.replace("weight=weight", "weight=w"), layouts=("contiguous", "unbatched")), BOTH,
          "a row alone has a path of its own"),
    Fault("weights forgotten of one row for all", the.cross_entropy_options_reduced,
          Form("w = None if z.dim() == 2 and z.stride(0) == 0 else weight\n"
               + CE.replace("weight=weight", "weight=w"), layouts=("contiguous", "expanded")), BOTH,
          "stride 0 has a path of its own"),
    Fault("kept count for the total weight, of (N, C, d)", the.cross_entropy_options_reduced,
          Form(f"{_ROWS}other = z.dim() == 3 and label_smoothing == 0 and ignore_index == -100\n"
               f"mass = kept.sum() if weight is None or other else (weight[label] * kept).sum()\n{MEAN}",
               layouts=("contiguous", "inner")), BOTH,
          "sequences have a path of their own"),
    Fault("no smoothing of a row whose label weighs nothing", the.cross_entropy_options,
          Form(f"{KEPT}rows = F.cross_entropy(z, y, {INDEX}, reduction='none')\n"
               "rows if weight is None else torch.where(weight[label] == 0, 0, rows)"), BOTH,
          "such rows are skipped: their smoothing has other classes' weights"),
    # --- soft targets ---
    Fault("mean by the total weight", the.soft_cross_entropy_options_reduced,
          Form("rows = F.cross_entropy(z, p, weight, label_smoothing=label_smoothing, reduction='none')\n"
               "mass = rows.numel() if weight is None else (p.movedim(dim, -1) * weight).sum()\n" + MEAN), BOTH,
          "what index targets do, done for probabilities"),
    Fault("weights left out", the.soft_cross_entropy_options,
          Form("F.cross_entropy(z, p, label_smoothing=label_smoothing, reduction='none')"), BOTH,
          "the soft path ignores them"),
    Fault("smoothing mass over K - 1", the.soft_cross_entropy_options,
          Form("q = p * (1 - label_smoothing) + (1 - p) * label_smoothing / max(1, z.shape[dim] - 1)\n"
               "F.cross_entropy(z, q, weight, reduction='none')"), BOTH,
               "the smoothing goes to the other classes alone"),
    Fault("1/N left out of the gradient", the.soft_cross_entropy_options_reduced,
          Form(gradient("g * (z.numel() // z.shape[dim] if reduction == 'mean' else 1)",
          f"F.cross_entropy(z, p, {SOFT})")), GRADIENT,
          "the mean of the value alone"),
    Fault("targets without a gradient", the.soft_cross_entropy_options,
          Form(gradient("0 * g",
          "F.cross_entropy(z, p, weight, label_smoothing=label_smoothing, reduction='none')", "p")), GRADIENT,
          "taken for constants, as a teacher's usually are"),
    # --- of an affine layer ---
    Fault("bias left out", of_layer.linear_cross_entropy,
          Form(LINEAR.replace("F.linear(x, W, b)", "F.linear(x, W) + 0 * b")), BOTH, "a fused kernel without a bias"),
    Fault("last chunk not accumulated", of_layer.linear_cross_entropy,
          Form("h = x.clone()\n"
               "h.register_hook(lambda g: torch.cat((g[: len(g) - len(g) % 2], 0 * g[len(g) - len(g) % 2 :])))\n"
               + LINEAR.replace("(x,", "(h,")), GRADIENT, "the gradient of the rows of an incomplete chunk is lost"),
    Fault("mean of chunk means", of_layer.linear_cross_entropy,
          Form("n = (len(x) + 1) // 2\n"
               "parts = [F.cross_entropy(F.linear(u, W, b), v, weight, ignore_index=ignore_index, reduction=reduction) "
               "for u, v in zip(x.split(n), y.split(n))]\n"
               "sum(parts) / (len(parts) if reduction == 'mean' else 1)"), GRADIENT,
          "chunks of unequal weight count alike, in the value as well"),
    Fault("gradient of the weights of the first class", of_layer.linear_cross_entropy,
          Form(gradient("torch.cat((0 * g[:1], g[1:]))", LINEAR, "W")), GRADIENT, "a class range that starts at 1"),
    Fault("gradient of the bias by rows", of_layer.linear_cross_entropy, Form(gradient("g / len(x)", LINEAR, "b")),
          GRADIENT,
          "averaged where it is summed"),
    Fault("upstream ignored", of_layer.linear_cross_entropy, Form(upstream("torch.ones_like(g)", LINEAR)), GRADIENT,
          "gradients computed in the forward pass, as fused losses do, and not scaled after"),
    Fault("upstream of the first row", of_layer.linear_cross_entropy_rows, Form(upstream("g[:1].expand_as(g)",
          LINEAR)), GRADIENT,
          "a per-row grad_output is taken for one number"),
    Fault("targets taken for their argmax", of_layer.linear_soft_cross_entropy,
          Form("F.cross_entropy(F.linear(x, W, b), F.one_hot(p.argmax(1), p.shape[1]).to(p), "
               f"{of_layer.SOFT})"), BOTH,
          "a kernel for index targets alone"),
    Fault("smoothing left out", of_layer.linear_cross_entropy_smoothed, Form(LINEAR), BOTH,
          "what the chunked kernel computes, which has no smoothing, taken all the same"),
    Fault("smoothing left out", of_layer.linear_cross_entropy_smoothed_rows, Form(LINEAR), BOTH,
          "what the chunked kernel computes, which has no smoothing, taken all the same"),
)  # fmt: skip
