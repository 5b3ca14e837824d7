"""Faults of optimizer steps, of whole training steps, and of two columns that follow one."""

from __future__ import annotations

from equivalences.catalogue import optimizers as step
from equivalences.catalogue import training, two_columns
from equivalences.catalogue.training import GRADIENTS, LEAVES, LOSSES, RESULT
from equivalences.evidence.faults.fault import Fault
from equivalences.evidence.faults.plant import NARROW, VALUE
from equivalences.model import Form

_RISING = "g = -d if maximize else d\n"
_LOSS = LOSSES["F.cross_entropy"]
_BACKWARD = f"{LEAVES}{_LOSS}.backward()\n"
_FRESH = (
    f"{LEAVES}for _ in range(2):\n    a = torch.optim.Adam((W, b), lr, (beta1, beta2), eps)\n    a.zero_grad()\n"
    f"    {_LOSS}.backward()\n    a.step()\n{RESULT}"
)
_TWICE = f"{LEAVES}a = torch.optim.SGD((W, b), lr)\n"


def _adam(
    moments: str = "m = beta1 * m + (1 - beta1) * g\nv = beta2 * v + (1 - beta2) * g * g\n",
    below: str = "torch.sqrt(v / c2) + eps",
    t: str = "step + 1",
    decay: str = "g = (-d if maximize else d) + weight_decay * w\n",
    formats: tuple[str, ...] | None = None,
) -> Form:
    """Adam's step by hand, with one of its lines wrong."""
    return Form(f"{decay}{moments}c1, c2 = 1 - beta1 ** ({t}), 1 - beta2 ** ({t})\n"
                f"torch.stack((w - lr * (m / c1) / ({below}), m, v), 1)", formats=formats)  # fmt: skip


def _momentum(buffer: str, used: str = "g + momentum * b if nesterov else b") -> Form:
    return Form(f"g = (-d if maximize else d) + weight_decay * w\nb = {buffer}\ntorch.stack((w - lr * ({used}), b), 1)")


# In bfloat16 the mini-batches of few problems differ by more than their rounding.
FINE = ("float64", "float32", "float16")

FAULTS = (
    Fault("decay of the wrong sign", step.sgd_step, Form(f"{_RISING}w - lr * (g - weight_decay * w)"), VALUE,
          "weights grow"),
    Fault("decay not by the rate", step.sgd_step, Form(f"{_RISING}w - lr * g - weight_decay * w"), VALUE,
          "decoupled, and not scaled"),
    Fault("maximize ignored", step.sgd_step, Form("w - lr * (d + weight_decay * w)"), VALUE,
          "an option that is taken and not read"),
    Fault("maximize turns the decay, too", step.sgd_step,
          Form("g = d + weight_decay * w\nw - lr * (-g if maximize else g)"), VALUE,
          "the sign is applied after the decay"),
    Fault("rate in storage format", step.sgd_step,
          Form("r = torch.tensor(lr, dtype=w.dtype)\n" + f"{_RISING}w - r * (g + weight_decay * w)", formats=NARROW),
          VALUE,
          "0.1 rounded to 16 bits, and the product as well", hidden=True,
          invisible="it is what the kernel of w.add_(g, alpha=-lr) does on the CPU: alpha, and its product "
                    "outside of the vector "
          "body, are rounded to storage (aten/src/ATen/native/ufunc/add.h); the allowance is 2 u lr |g| + u |w'|"),
    Fault("first number alone", step.sgd_step,
          Form(f"{_RISING}torch.cat(((w - lr * (g + weight_decay * w))[:1], w[1:]))"), VALUE,
          "the vector body never stores its result"),
    Fault("dampening on the first step", step.sgd_momentum_step,
          _momentum("(1 - dampening) * g if first else momentum * m + (1 - dampening) * g"), VALUE,
          "the buffer starts at 0"),
    Fault("dampening ignored", step.sgd_momentum_step, _momentum("g if first else momentum * m + g"), VALUE,
          "an option that is not read"),
    Fault("nesterov ignored", step.sgd_momentum_step, _momentum("g if first else momentum * m + (1 - dampening) * g",
          "b"), VALUE,
          "an option that is not read"),
    Fault("nesterov with the old buffer", step.sgd_momentum_step,
          _momentum("g if first else momentum * m + (1 - dampening) * g",
                    "g + momentum * (0 if first else m) if nesterov else b"), VALUE, "one step behind"),
    Fault("no bias correction", step.adam_step, _adam(t="10 ** 6"), VALUE, "the first steps are too small"),
    Fault("bias correction of the last step", step.adam_step, _adam(t="max(1, step)"), VALUE, "t counts from 0"),
    Fault("no bias correction after 1000 steps", step.adam_step,
          _adam(t="step + 1 if step < 1000 else 10 ** 6", formats=("float64", "float32")), VALUE,
          "0.999 to the power of 1000 is still a third"),
    Fault("epsilon inside the root", step.adam_step, _adam(below="torch.sqrt(v / c2 + eps)"), VALUE,
          "TensorFlow's epsilon hat has yet another place"),
    Fault("epsilon before the correction", step.adam_step,
          _adam(below="(torch.sqrt(v) + eps) / c2 ** 0.5", formats=("float64", "float32", "bfloat16")), VALUE,
          "Kingma & Ba's own shortcut (section 2): another epsilon"),
    Fault("epsilon before the correction, float16", step.adam_step,
          _adam(below="(torch.sqrt(v) + eps) / c2 ** 0.5", formats=("float16",)), VALUE,
          "Kingma & Ba's own shortcut (section 2): another epsilon",
          invisible="eps is 1e-6 at most, and the root of a number of float16 is 0 or at least 2.4e-4: the step "
                    "changes by 0.4 %, "
          "8 u, at the very most, and the moments' own roundings near the smallest subnormal are as large"),
    Fault("second moment of |g|", step.adam_step,
          _adam("m = beta1 * m + (1 - beta1) * g\nv = beta2 * v + (1 - beta2) * g.abs()\n"), VALUE,
          "not squared"),
    Fault("betas swapped", step.adam_step,
          _adam("m = beta2 * m + (1 - beta2) * g\nv = beta1 * v + (1 - beta1) * g * g\n"), VALUE,
          "both are floats"),
    Fault("decay in the gradient", step.adamw_step, _adam(), VALUE, "Adam with L2 in place of AdamW"),
    Fault("decay not by the rate", step.adamw_step,
          _adam(decay="w = w * (1 - weight_decay)\ng = -d if maximize else d\n"), VALUE,
          "Loshchilov & Hutter's own formula, which torch multiplies by the rate"),
    Fault("maximum ignored", step.amsgrad_step,
          Form("g = (-d if maximize else d) + weight_decay * w\nm = beta1 * m + (1 - beta1) * g\n"
               "v = beta2 * v + (1 - beta2) * g * g\n"
               "c1, c2 = 1 - beta1 ** (step + 1), 1 - beta2 ** (step + 1)\n"
               "torch.stack((w - lr * (m / c1) / (torch.sqrt(v / c2) + eps), m, v, torch.maximum(top, v)), 1)"), VALUE,
          "kept, and not used"),
    # --- training ---
    Fault("step forgotten", training.cross_entropy_sgd, Form(f"{_BACKWARD}{RESULT}"), VALUE, "the parameters stay"),
    Fault("bias not registered", training.cross_entropy_sgd,
          Form(f"{_BACKWARD}torch.optim.SGD((W,), lr).step()\n{RESULT}"), VALUE, "a parameter that no optimizer knows"),
    Fault("sum for mean", training.cross_entropy_sgd,
          Form(f"{LEAVES}F.cross_entropy(F.linear(x, W, b), y, reduction='sum').backward()\n"
               f"torch.optim.SGD((W, b), lr).step()\n{RESULT}"), VALUE,
          "the rate grows with the batch"),
    Fault("softmax layer", training.cross_entropy_sgd,
          Form(f"{LEAVES}F.cross_entropy(F.softmax(F.linear(x, W, b), 1), y).backward()\n"
               f"torch.optim.SGD((W, b), lr).step()\n{RESULT}"), VALUE,
          "a loss that takes logits is given probabilities"),
    Fault("gradient of the last sample", training.cross_entropy_sgd,
          Form(f"{LEAVES}F.cross_entropy(F.linear(x[-1:], W, b), y[-1:]).backward()\n"
               f"torch.optim.SGD((W, b), lr).step()\n{RESULT}"), VALUE,
          "zero_grad inside the loop over samples"),
    Fault("SGD for Adam", training.cross_entropy_adam,
          Form(f"{_BACKWARD}torch.optim.SGD((W, b), lr).step()\n{RESULT}"), VALUE, "a default"),
    Fault("AdamW for Adam", training.cross_entropy_adam,
          Form(f"{_BACKWARD}torch.optim.AdamW((W, b), lr, (beta1, beta2), eps).step()\n{RESULT}", formats=("float64",
          "float32")), VALUE,
          "its default decay is 0.01"),
    Fault("zero_grad forgotten", training.two_steps_of_sgd,
          Form(f"{_TWICE}for _ in range(2):\n    {_LOSS}.backward()\n    a.step()\n{RESULT}"), VALUE,
          "gradients accumulate over steps"),
    Fault("step before backward", training.two_steps_of_sgd,
          Form(f"{_TWICE}for _ in range(2):\n    a.step()\n    a.zero_grad()\n    {_LOSS}.backward()\n{RESULT}"),
          VALUE, "one step behind"),
    Fault("a new optimizer each step", training.two_steps_of_adam,
          Form(_FRESH, formats=("float64", "float32", "float16")), VALUE, "its state is lost"),
    Fault("a new optimizer each step, bfloat16", training.two_steps_of_adam, Form(_FRESH, formats=("bfloat16",)), VALUE,
          "its state is lost",
          invisible="Adam divides the gradient by its size: where the first step, rounded to 8 bits, leaves a "
                    "gradient that may be 0, "
          "the second has no bound at all (most numbers here), and elsewhere both ways step by nearly lr"),
    Fault("mean of mini-batch means", training.full_batch_gradient,
          Form(f"{LEAVES}n = len(range(0, len(x), batch))\nfor i in range(0, len(x), batch):\n"
               f"    (F.cross_entropy(F.linear(x[i : i + batch], W, b), y[i : i + batch]) / n).backward()\n"
               f"{GRADIENTS}", formats=FINE), VALUE,
          "the last batch is smaller, and counts as much"),
    Fault("last batch dropped", training.full_batch_gradient,
          Form(f"{LEAVES}n = max(1, len(x) // batch * batch)\n"
               f"F.cross_entropy(F.linear(x[:n], W, b), y[:n]).backward()\n{GRADIENTS}", formats=FINE), VALUE,
          "drop_last=True"),
    Fault("shuffled", training.data_loader,
          Form("torch.manual_seed(1)\no = torch.randperm(len(x))\n"
               "batches = enumerate(zip(x[o].split(batch), y[o].split(batch)))\n"
               "torch.cat([torch.cat((torch.full_like(u[:, :1], k), v[:, None].to(u), u), 1) for k, (u, v) in "
               "batches])"), VALUE,
          "shuffle=True where an order is expected"),
    Fault("labels a batch late", training.data_loader,
          Form("batches = enumerate(zip(x.split(batch), y.roll(batch).split(batch)))\n"
               "torch.cat([torch.cat((torch.full_like(u[:, :1], k), v[:, None].to(u), u), 1) for k, (u, v) in "
               "batches])"), VALUE,
          "two iterators that are out of step"),
    # --- two columns ---
    Fault("head at the full rate", two_columns.binary_sgd, two_columns._two_columns("SGD", "", "lr"), VALUE,
          "twice as fast as one column"),
    Fault("everything at half the rate", two_columns.binary_sgd, Form(
          f"{two_columns.TWO_LEARNED}F.cross_entropy({two_columns.TWO_COLUMNS}, y).backward()\n"
          f"torch.optim.SGD((V, c, w, a), lr / 2).step()\n{two_columns.DIFFERENCE}"), VALUE,
          "the first layer is slowed down, too"),
    Fault("head at the full rate", two_columns.binary_adam, two_columns._two_columns("Adam", ", (beta1, beta2), eps",
          "lr"), VALUE,
          "twice as far as one column"),
    Fault("head's decay halved", two_columns.binary_sgd_decay, two_columns._two_columns("SGD", two_columns.DECAY),
          VALUE,
          "half the rate decays half as fast"),
)  # fmt: skip
