"""Faults of cross entropy without options: values, reductions, the gradient."""

from __future__ import annotations

from equivalences.catalogue import cross_entropy as the
from equivalences.faults.plant import BOTH, GRADIENT, NARROW, VALUE, WIDE, gradient, upstream, value
from equivalences.model import Fault, Form

FLAT = ("contiguous", "strided", "transposed")
CE = "F.cross_entropy(z, y, reduction='none')"
REDUCED = "F.cross_entropy(z, y, reduction=reduction)"
SOFT = "F.cross_entropy(z, p, reduction='none')"
_AT = ".gather(dim, y.unsqueeze(dim)).squeeze(dim)"
_LSE = "torch.logsumexp(z, dim)"
_STORAGE = (
    "e = torch.exp(z - z.amax(1, keepdim=True))\ns = torch.zeros_like(e[:, 0])\n"
    "for k in range(e.shape[1]):\n    s = s + e[:, k]\n"
)

FAULTS = (
    Fault("label off by one", the.cross_entropy, Form("F.cross_entropy(z, (y + 1) % z.shape[dim], reduction='none')"),
          BOTH,
          "labels that count from 1"),
    Fault("softmax twice", the.cross_entropy, Form("F.cross_entropy(F.softmax(z, dim), y, reduction='none')"), BOTH,
          "a softmax layer before a loss that takes logits"),
    Fault("the sign", the.cross_entropy, Form("F.nll_loss(-F.log_softmax(z, dim), y, reduction='none')"), BOTH,
          "the likelihood"),
    Fault("another base", the.cross_entropy, Form(f"{CE} / math.log(2)"), BOTH, "bits for nats"),
    Fault("softmax term left out", the.cross_entropy, Form(f"{_LSE}.detach() - z{_AT}"), GRADIENT,
          "the gradient is -1 at the label"),
    Fault("softmax term doubled", the.cross_entropy, Form(f"{_LSE} * 2 - {_LSE}.detach() - z{_AT}"), GRADIENT,
          "2 softmax - target, of a right value"),
    Fault("target term left out", the.cross_entropy, Form(f"{_LSE} - (z{_AT}).detach()"), GRADIENT,
          "the gradient is the softmax"),
    Fault("epsilon inside the log", the.cross_entropy,
          Form(f"-torch.log(F.softmax(z, dim) + torch.finfo(z.dtype).tiny){_AT}"), BOTH,
          "the smallest epsilon that anybody writes"),
    Fault("clamp inside the log", the.cross_entropy,
          Form(f"-torch.log(F.softmax(z, dim).clamp(min=torch.finfo(z.dtype).eps)){_AT}"), BOTH,
          "a floor under the probability, as Keras has it"),
    Fault("the shift is lost", the.cross_entropy,
          Form(f"(z - z.amax(dim, keepdim=True)).exp().sum(dim).log() - z{_AT}"), VALUE,
          "subtracted inside, and not added back"),
    Fault("loss never above 8", the.cross_entropy, Form(value("v.clamp(max=8.0)", CE)), BOTH,
          "a clamp against exploding losses: confidently wrong rows no longer learn"),
    Fault("loss of confident rows dropped", the.cross_entropy,
          Form(value("v - torch.where(v < 0.02, v, 0 * v).detach()", CE), formats=WIDE), VALUE,
          "a small loss is taken for none"),
    Fault("loss of confident rows dropped, 16 bits", the.cross_entropy,
          Form(value("v - torch.where(v < 0.0005, v, 0 * v).detach()", CE), formats=NARROW), VALUE,
          "a small loss is taken for none", hidden=True,
          invisible="a loss below 0.0005 has every other class at a distance d > 7.6 from the label, and "
                    "log_softmax rounds "
          "numbers of that size: u d is 0.03 in bfloat16 and 0.0037 in float16; it is accurate absolutely, not "
          "relatively"),
    Fault("gradient of confident rows dropped", the.cross_entropy,
          Form(f"keep = ({CE} > 0.125).to(z.dtype).unsqueeze(dim)\n" + gradient("g * keep", CE)), GRADIENT,
          "rows that are right no longer push the other classes down"),
    Fault("first row for all", the.cross_entropy, Form("F.cross_entropy(z, y, reduction='none')[:1].expand(len(y))",
          layouts=FLAT), BOTH,
          "a stride of 0"),
    Fault("one class", the.cross_entropy, Form(f"{CE} if z.shape[dim] > 1 else F.softplus(-z).squeeze(dim)"), BOTH,
          "one column is taken for a binary problem"),
    Fault("upstream ignored", the.cross_entropy, Form(upstream("torch.ones_like(g)", CE)), GRADIENT,
          "a fused backward pass that stores its gradient in the forward pass"),
    Fault("upstream of the first row", the.cross_entropy, Form(upstream("g[:1].expand_as(g)", CE), layouts=FLAT),
          GRADIENT,
          "a per-row grad_output is taken for one number"),
    Fault("row 0", the.cross_entropy, Form(value("torch.cat((v[:1] * (1 + 32 * u), v[1:]))", CE), layouts=FLAT), BOTH,
          "a wrong offset"),
    Fault("last row of a vector's tail", the.cross_entropy,
          Form(value("torch.cat((v[:-1], v[-1:] * (1 + 32 * u))) if len(v) % 8 else v", CE), layouts=FLAT), BOTH,
          "the scalar tail goes wrong in its last element"),
    Fault("gradient of row 0", the.cross_entropy, Form(gradient("torch.cat((g[:1] * (1 + 64 * u), g[1:]))", CE),
          layouts=FLAT), GRADIENT,
          "a wrong offset in the backward pass alone"),
    Fault("strided input", the.cross_entropy, Form(value("v if z.is_contiguous() else v * (1 + 32 * u)", CE),
          layouts=("strided",)), BOTH,
          "strided data is taken for contiguous"),
    Fault("dimensions mixed", the.cross_entropy,
          Form("F.cross_entropy(z.reshape(-1, z.shape[1]), y.reshape(-1), reduction='none').reshape(y.shape)",
          layouts=("inner",)), BOTH,
          "(N, C, d) reshaped to rows without moving the class dimension"),
    Fault("scaled by 1 + 16 u", the.cross_entropy, Form(value("v * (1 + 16 * u)", CE)), BOTH,
          "a small systematic error"),
    Fault("gradient scaled by 1 + 64 u", the.cross_entropy, Form(gradient("g * (1 + 64 * u)", CE)), GRADIENT,
          "in the backward pass alone"),
    Fault("gradient entries below u flushed", the.cross_entropy,
          Form(gradient("torch.where(g.abs() < u, 0 * g, g)", CE)), GRADIENT,
          "improbable classes get no gradient"),
    Fault("smoothed by 16 u", the.cross_entropy,
          Form("F.cross_entropy(z, y, reduction='none', label_smoothing=8 * torch.finfo(z.dtype).eps)"), BOTH,
          "a leftover of label smoothing"),
    Fault("accumulator in storage format", the.cross_entropy,
          Form(f"{_STORAGE}(s.log() + z.amax(1)) - z.gather(1, y[:, None])[:, 0]", formats=NARROW,
          layouts=("transposed",)), VALUE,
          "16-bit exponentials summed in 16 bits, one after the other", hidden=True),
    Fault("constant log K", the.cross_entropy, Form("0 * z.sum(dim).clamp(-1, 1) + math.log(z.shape[dim])"), BOTH,
          "the loss of a network that has not learned anything: right at its first step"),
    # --- reductions ---
    Fault("1/N left out", the.cross_entropy_reduced, Form("F.cross_entropy(z, y, reduction='sum')"), BOTH,
          "sum for mean"),
    Fault("1/(N + 1)", the.cross_entropy_reduced,
          Form("F.cross_entropy(z, y, reduction='sum') / (y.numel() + 1 if reduction == 'mean' else 1)"), BOTH,
          "a count that starts at 1"),
    Fault("1/(N K)", the.cross_entropy_reduced,
          Form("F.cross_entropy(z, y, reduction='sum') / (z.numel() if reduction == 'mean' else 1)"), BOTH,
          "the mean over all numbers, as of a one-hot product"),
    Fault("1/N left out of the gradient", the.cross_entropy_reduced,
          Form(gradient("g * (y.numel() if reduction == 'mean' else 1)", REDUCED)), GRADIENT,
          "the mean of the value alone"),
    Fault("1/N twice in the gradient", the.cross_entropy_reduced,
          Form(gradient("g / (y.numel() if reduction == 'mean' else 1)", REDUCED)), GRADIENT,
          "once by the loss, once by the training loop"),
    Fault("last row dropped", the.cross_entropy_reduced,
          Form("rows = F.cross_entropy(z, y, reduction='none')\n"
               "rows[: max(1, len(rows) - 1)].sum() / (len(rows) if reduction == 'mean' else 1)",
               layouts=FLAT), BOTH, "a block loop without its remainder"),
    Fault("upstream ignored", the.cross_entropy_reduced, Form(upstream("torch.ones_like(g)", REDUCED)), GRADIENT,
          "right for loss.backward(), wrong as soon as the loss is scaled"),
    Fault("gradient scaled by 1 + 64 u", the.cross_entropy_reduced, Form(gradient("g * (1 + 64 * u)", REDUCED)),
          GRADIENT,
          "far below every absolute tolerance: an entry is about 1/(N K)"),
    # --- soft targets ---
    Fault("targets taken for normalised", the.soft_cross_entropy, Form("torch.logsumexp(z, dim) - (p * z).sum(dim)"),
          GRADIENT,
          "lse in place of (sum p) lse: the same value, but the gradient of the targets is -z"),
    Fault("targets detached", the.soft_cross_entropy,
          Form("F.cross_entropy(z, p.detach(), reduction='none') + 0 * p.sum(dim)"), GRADIENT,
          "as if targets were constants: what self-distillation learns from is gone"),
    Fault("hard targets", the.soft_cross_entropy,
          Form("F.cross_entropy(z, p.argmax(dim), reduction='none') + 0 * p.sum(dim)"), BOTH,
          "the most probable class alone"),
    Fault("entropy forgotten", the.soft_cross_entropy,
          Form("F.kl_div(F.log_softmax(z, dim), p, reduction='none').sum(dim)"), BOTH,
          "the Kullback-Leibler divergence"),
    Fault("upstream ignored", the.soft_cross_entropy, Form(upstream("torch.ones_like(g)", SOFT)), GRADIENT,
          "without grad_output"),
    # --- closed forms ---
    Fault("log(K - 1)", the.uniform_logits,
          Form("0 * z.sum(dim).clamp(-1, 1) + math.log(max(1, z.shape[dim] - 1))"), VALUE, "the label is not counted"),
    Fault("without 1/N", the.cross_entropy_gradient,
          Form("t = F.one_hot(y, z.shape[dim]).movedim(-1, dim)\nF.softmax(z, dim) - t"), BOTH,
          "the gradient of the sum"),
    Fault("target off by one", the.cross_entropy_gradient,
          Form("t = F.one_hot((y + 1) % z.shape[dim], z.shape[dim]).movedim(-1, dim)\n"
               "(F.softmax(z, dim) - t) / y.numel()"), VALUE,
          "labels that count from 1; the second derivative does not depend on the target"),
    Fault("constant zero", the.cross_entropy_gradient_sums_to_zero, Form("0 * z.sum(dim).clamp(-1, 1)"), BOTH,
          "a vacuous form: it never computes a gradient",
          invisible="the identity says that the sum is 0 and its gradient 0, whatever cross entropy is: the "
                    "constant 0 is right; "
          "that the gradient itself is computed is another identity's business"),
    Fault("not summed over the last class", the.cross_entropy_gradient_sums_to_zero,
          Form("t = F.one_hot(y, z.shape[dim]).movedim(-1, dim)\n"
               "(F.softmax(z, dim) - t).narrow(dim, 0, z.shape[dim] - 1).sum(dim)"), BOTH,
          "the loop ends one class early"),
)  # fmt: skip
