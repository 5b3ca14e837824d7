"""Faults of kernels that read a row of many classes in blocks."""

from __future__ import annotations

from equivalences.catalogue import large as the
from equivalences.catalogue.cross_entropy_options import INDEX
from equivalences.evidence.faults.fault import Fault
from equivalences.evidence.faults.plant import BOTH, GRADIENT, gradient
from equivalences.model import Form

_CROSS_ENTROPY = f"F.cross_entropy(z, y, {INDEX}, reduction=reduction)"
_LABEL = "y = torch.where(y == ignore_index, y, {} % z.shape[dim])\n" + _CROSS_ENTROPY
_WIDER = "x = z if z.dtype == torch.float64 else z.float()\n"
_BLOCK = "torch.exp(part - top.unsqueeze(dim)).sum(dim)"


def online(block: int, total: str) -> str:
    """`lse` by one pass over blocks: the running maximum `m`, and `total`, the sum below it once the maximum is `top`.

    Summed in float32 or more, as kernels do.
    """
    return (
        f"{_WIDER}m = torch.full_like(x.select(dim, 0), -math.inf).detach()\ns = torch.zeros_like(m)\n"
        f"for part in x.split({block}, dim):\n"
        "    top = torch.maximum(m, part.amax(dim).detach())\n"
        f"    s = {total}\n    m = top\n"
        "lse = m + torch.log(s)\n"
    )


def _softmax_below(top: str) -> str:
    """Softmax with `top` in place of the maximum, in float32 or more."""
    return f"{_WIDER}e = torch.exp(x - ({top}).detach())\n(e / e.sum(dim, keepdim=True)).to(z.dtype)"


def _log_softmax_of(change: str) -> str:
    """Log-softmax of logits that are changed in rows of more than 128 classes."""
    return f"x = {change} if z.shape[dim] > 128 else z\nF.log_softmax(x, dim)"


FAULTS = (
    *(
        Fault(f"sum never rescaled, blocks of {block}", the.logsumexp_large_vocabulary,
              Form(f"{online(block, f's + {_BLOCK}')}lse.to(z.dtype)"), BOTH,
              "an online softmax that forgets its old sum when the maximum rises", hidden=True)
        for block in (16, 128, 1024, 8192)
    ),
    Fault("sum never rescaled, blocks of 1024", the.log_softmax_large_vocabulary,
          Form(f"{online(1024, f's + {_BLOCK}')}(x - m.unsqueeze(dim) - torch.log(s).unsqueeze(dim)).to(z.dtype)"),
          BOTH,
          "an online softmax that forgets its old sum when the maximum rises", hidden=True),
    Fault("sum never rescaled, blocks of 4096", the.cross_entropy_large_vocabulary,
          Form("plain = weight is None and label_smoothing == 0\n"
               f"{online(4096, f's + {_BLOCK}')}"
               "kept = y != ignore_index\n"
               "labelled = x.gather(dim, torch.where(kept, y, 0).unsqueeze(dim)).squeeze(dim)\n"
               "rows = (m - labelled + torch.log(s)) * kept\n"
               f"rows.to(z.dtype) if plain else {_CROSS_ENTROPY}"), BOTH,
          "an online softmax that forgets its old sum when the maximum rises", hidden=True),
    Fault("rescaled is the new block", the.logsumexp_large_vocabulary,
          Form(f"{online(1024, f's + {_BLOCK} * torch.exp(m - top).clamp(min=(m == -math.inf).to(m.dtype))')}"
               "lse.to(z.dtype)"),
          BOTH, "an online softmax whose factor is on the wrong sum", hidden=True),
    Fault("factor upside down", the.logsumexp_large_vocabulary,
          Form(f"{online(1024, f's * torch.exp(top - m).nan_to_num(0, 0, 0) + {_BLOCK}')}lse.to(z.dtype)"), BOTH,
          "an online softmax whose factor is exp(new - old)", hidden=True),
    Fault("halves added without the difference of their maxima", the.logsumexp_large_vocabulary,
          Form(f"{_WIDER}h = x.shape[dim] // 2\n"
               "a, b = x.narrow(dim, 0, h), x.narrow(dim, h, x.shape[dim] - h)\n"
               "m, k = a.amax(dim, keepdim=True).detach(), b.amax(dim, keepdim=True).detach()\n"
               "s = torch.exp(a - m).sum(dim) + torch.exp(b - k).sum(dim)\n"
               "(torch.maximum(m, k).squeeze(dim) + torch.log(s)).to(z.dtype)"), BOTH,
          "a row split over two programs", hidden=True),
    Fault("maximum of the first 1024 classes", the.softmax_large_vocabulary,
          Form(_softmax_below("x.narrow(dim, 0, min(1024, x.shape[dim])).amax(dim, keepdim=True)")),
          BOTH, "one block is looked at: exp overflows in the others",
          hidden=True),
    Fault("maximum of the last 8192 classes", the.softmax_large_vocabulary,
          Form("k = min(8192, z.shape[dim])\n"
               + _softmax_below("x.narrow(dim, x.shape[dim] - k, k).amax(dim, keepdim=True)")),
          BOTH, "the maximum is set anew in every block", hidden=True),
    Fault("no shift beyond 128 classes", the.softmax_large_vocabulary,
          Form(_softmax_below("x.amax(dim, keepdim=True) * (x.shape[dim] <= 128)")),
          BOTH, "a second kernel, for rows that do not fit into one block",
          hidden=True),
    Fault("logits clamped to 10 beyond 128 classes", the.log_softmax_large_vocabulary,
          Form(_log_softmax_of("z.clamp(-10, 10)"), layouts=("contiguous", "inner")), BOTH,
          "so that exp does not overflow"),
    Fault("logits clamped to 50 beyond 128 classes", the.log_softmax_large_vocabulary,
          Form(_log_softmax_of("z.clamp(-50, 50)"), layouts=("contiguous", "inner")), BOTH,
          "so that exp does not overflow in float32"),
    Fault("last block, if not full, left out", the.log_softmax_large_vocabulary,
          Form("k = z.shape[dim] // 1024 * 1024 or z.shape[dim]\n"
               "z - torch.logsumexp(z.narrow(dim, 0, k), dim, keepdim=True)"), BOTH,
          "a loop over whole blocks, and no tail"),
    *(
        Fault(f"gradient from class {most:,} on", of,
              Form(gradient(f"g * (torch.arange(g.shape[1]) < {most})", code), layouts=("contiguous",)), GRADIENT, why)
        for of, code in ((the.logsumexp_large_vocabulary, "torch.logsumexp(z, dim)"),
                         (the.cross_entropy_large_vocabulary, _CROSS_ENTROPY))
        for most, why in ((50_257, "the vocabulary of another model"), (65_536, "a class number of 16 bits"))
    ),
    Fault("label without its 17th bit", the.cross_entropy_large_vocabulary, Form(_LABEL.format("(y & 65535)")), BOTH,
          "labels stored in 16 bits without a sign"),
)  # fmt: skip
