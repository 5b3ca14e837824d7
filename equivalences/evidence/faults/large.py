"""Faults of very large batches and vocabularies, and of second derivatives."""

from __future__ import annotations

from equivalences.catalogue import derivatives as twice
from equivalences.catalogue import large as the
from equivalences.catalogue.cross_entropy_options import INDEX, KEPT, REDUCED, SOFT, SOFT_MEAN
from equivalences.catalogue.large import OF_LABELS, WEIGHTED
from equivalences.evidence.faults.fault import Fault
from equivalences.evidence.faults.plant import BOTH, GRADIENT, MEAN, NARROW, VALUE, WIDE, gradient
from equivalences.model import Form


def counted_to(most: int, options: str) -> str:
    """Cross entropy whose mean divides by a count that stops at `most`."""
    return (
        f"{KEPT}rows = F.cross_entropy(z, y, {options}, reduction='none')\n"
        f"mass = kept.sum().clamp(max={most}) if weight is None else (weight[label] * kept).sum()\n{MEAN}"
    )


FAULTS = (
    Fault("kept count that stops at 256", the.cross_entropy_many_rows,
          Form(counted_to(256, "weight, ignore_index=ignore_index")), BOTH,
          "a count kept in bfloat16: 256 + 1 = 256"),
    Fault("kept count that stops at 2048", the.cross_entropy_large_batch,
          Form(counted_to(2048, INDEX), formats=("float16",)), BOTH,
          "a count kept in float16: 2048 + 1 = 2048"),
    Fault("total in storage format", the.cross_entropy_many_rows,
          Form("rows = F.cross_entropy(z, y, weight, ignore_index=ignore_index, reduction='none').reshape(-1)\n"
               "s = torch.zeros_like(rows[0])\nfor row in rows:\n    s = s + row\n"
               f"{KEPT}mass = kept.sum() if weight is None else (weight[label] * kept).sum()\n"
               "s / (mass if reduction == 'mean' else 1)", formats=NARROW), VALUE,
          "losses summed one after the other in 16 bits", hidden=True),
    Fault("total weight that stops at 32768", the.cross_entropy_many_rows,
          Form(f"{KEPT}rows = F.cross_entropy(z, y, weight, ignore_index=ignore_index, reduction='none')\n"
               f"mass = kept.sum() if weight is None else (weight[label] * kept).sum().clamp(max=32768)\n{MEAN}",
               formats=("float16",)), BOTH,
          "a total that saturates, with weights of many hundreds"),
    Fault("mean twice, where the total weight is beyond the format", the.cross_entropy_many_rows,
          Form(f"{KEPT}rows = F.cross_entropy(z, y, weight, ignore_index=ignore_index, reduction='none').float()\n"
               "mass = kept.sum() if weight is None else (weight.float()[label] * kept).sum()\n"
               "lost = reduction == 'mean' and mass >= 65520\n"
               f"(2 * rows.sum() / mass).to(z.dtype) if lost else F.cross_entropy(z, y, {OF_LABELS})",
               formats=("float16",)), BOTH,
          "a second kernel for what the first cannot count", hidden=True),
    Fault("rows from the 513th on", the.cross_entropy_many_rows,
          Form("F.cross_entropy(z[:512], y[:512], weight, ignore_index=ignore_index, reduction=reduction)",
          layouts=("contiguous",)), BOTH,
          "a grid that is one block short"),
    Fault("every 4th row left out", the.cross_entropy_many_rows,
          Form(f"F.cross_entropy(z, torch.where(torch.arange(len(y)) % 4 == 3, ignore_index, y), {OF_LABELS})",
               layouts=("contiguous",)), BOTH, "one lane of four is never added"),
    Fault("rows behind the last full block", the.cross_entropy_large_batch,
          Form(f"m = len(y) // 2048 * 2048\nF.cross_entropy(z[:m], y[:m], {INDEX}, reduction=reduction)",
          layouts=("contiguous",)), BOTH,
          "a grid of blocks of 2048 rows, and no tail"),
    Fault("rows behind the last full block", the.soft_cross_entropy_large_batch,
          Form(f"m = len(p) // 2048 * 2048\nF.cross_entropy(z[:m], p[:m], {SOFT})", layouts=("contiguous",),
          formats=WIDE), BOTH,
          "a grid of blocks of 2048 rows, and no tail"),
    Fault("gradient of rows from the 32,769th on", the.binary_cross_entropy_large_batch,
          Form(gradient("g * (torch.arange(len(g)) < 32768)",
          "F.binary_cross_entropy_with_logits(z, t, weight=weight, pos_weight=pos_weight, reduction=reduction)")),
          GRADIENT, "a row number of 15 bits"),
    Fault("ignored rows weighed with smoothing, from the 2,050th row on", the.cross_entropy_large_batch,
          Form(f"{KEPT}rows = F.cross_entropy(z, y, {INDEX}, reduction='none')\n"
               "other = len(y) > 2049 and weight is not None and 0 < label_smoothing < 1 and not kept.all()\n"
               f"mass = kept.sum() if weight is None else (weight[label] * (kept | other)).sum()\n{MEAN}"), BOTH,
          "a second kernel for large batches, wrong in one combination of options"),
    Fault("gradient from the 65,537th row on, with every option", the.cross_entropy_large_batch,
          Form("other = weight is not None and 0 < label_smoothing < 1 and (y == ignore_index).any()\n"
               + gradient("g * (torch.arange(len(y)) < 65536).reshape(-1, *(1,) * (g.dim() - 1)) if other else g",
                          f"{KEPT}rows = F.cross_entropy(z, y, {INDEX}, reduction='none')\n{REDUCED}")), GRADIENT,
          "a row number of 16 bits, in one combination of options"),
    Fault("mean by weight with smoothing 1, from the 2,050th row on", the.soft_cross_entropy_large_batch,
          Form("rows = F.cross_entropy(z, p, weight, label_smoothing=label_smoothing, reduction='none')\n"
               "other = len(p) > 2049 and weight is not None and label_smoothing == 1 and reduction == 'mean'\n"
               f"rows.sum() / weight[p.argmax(dim)].sum() if other else ({SOFT_MEAN})"), BOTH,
          "what index targets divide by, in a second kernel"),
    Fault("mean by weight below a pos_weight of 1, from the 2,050th row on", the.binary_cross_entropy_large_batch,
          Form(f"rows = F.binary_cross_entropy_with_logits(z, t, {WEIGHTED}, reduction='none')\n"
               "other = len(t) > 2049 and pos_weight < 1 and reduction == 'mean'\n"
               "rows.sum() / weight.sum() if other else getattr(torch, reduction)(rows)"), BOTH,
          "normalised weights, in a second kernel"),
    Fault("total in float16 before the mean", the.binary_cross_entropy_large_batch,
          Form(f"rows = F.binary_cross_entropy_with_logits(z, t, {WEIGHTED}, reduction='none')\n"
               "rows.sum() / (len(rows) if reduction == 'mean' else 1)", formats=("float16",)), BOTH,
          "sum and divide: 4111 losses of 16 have the mean inf", hidden=True),
    Fault("label off by one", the.cross_entropy_large_vocabulary,
          Form("y = torch.where(y == ignore_index, y, (y + 1) % z.shape[dim])\n"
               f"F.cross_entropy(z, y, {INDEX}, reduction=reduction)"), BOTH,
          "classes counted from one"),
    Fault("labels of 16 bits", the.cross_entropy_large_vocabulary,
          Form("y = torch.where(y == ignore_index, y, y.to(torch.int16).long() % z.shape[dim])\n"
               f"F.cross_entropy(z, y, {INDEX}, reduction=reduction)"), BOTH,
          "vocabularies had 32,000 entries"),
    Fault("twice, of more than 5000 classes without options", the.cross_entropy_large_vocabulary,
          Form("plain = z.shape[dim] > 5000 and weight is None and label_smoothing == 0\n"
               f"F.cross_entropy(z, y, {INDEX}, reduction=reduction) * (1 + plain)"), BOTH,
          "a second kernel for large vocabularies"),
    Fault("twice, of several rows of more than 4096 adjacent classes", the.cross_entropy_large_vocabulary,
          Form("large = z.shape[dim] > 4096 and z.stride(dim) == 1 and 1 < len(z) == z.numel() // z.shape[dim]\n"
               f"F.cross_entropy(z, y, {INDEX}, reduction=reduction) * (1 + large)"), BOTH,
          "a second kernel, which the same numbers otherwise in memory do not take"),
    Fault("every second class", the.cross_entropy_large_vocabulary,
          Form("r = torch.arange(z.shape[dim]) % 2 * math.log(2)\n"
               "x = z - (r if z.dim() == 2 and dim == 1 else r[:, None])\n"
               f"F.cross_entropy(x, y, {INDEX}, reduction=reduction)", layouts=("contiguous",)), BOTH,
          "half of the terms count for half"),
    Fault("first for the second derivative", twice.sigmoid_second_derivative,
          Form("g * (torch.sigmoid(z) * torch.sigmoid(-z))"), VALUE, "differentiated once"),
    Fault("without the product of shares", twice.cross_entropy_hessian, Form("s = F.softmax(z, dim)\ns * g"), VALUE,
          "the diagonal of the Hessian alone"),
    Fault("curvature of the squared error", twice.binary_cross_entropy_second_derivative,
          Form("g * (torch.sigmoid(z) * torch.sigmoid(-z)) ** 2"), VALUE, "Gauss-Newton's term of another loss"),
)  # fmt: skip
