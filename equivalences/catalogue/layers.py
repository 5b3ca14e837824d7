"""Activations, affine layers, dropout and modules (PyTorch deep learning, chapters 6 and 7)."""

from __future__ import annotations

from typing import Any

from equivalences.model import Differs, Form, Identity, Pitfall, Problem
from equivalences.oracle import exact
from equivalences.oracle.exact import dot
from equivalences.problems.layers import layers
from equivalences.problems.training import activations, dropouts, sizes

ACTIVATIONS = activations()
# Where neither exp(z) nor exp(-z) overflows or underflows.
FINITE = ("saturated", "wide", "zero", "core")


def _pushed_at_zero(p: Problem) -> bool:
    return bool(((p["z"] == 0) & (p["g"] != 0)).any())


tanh = Identity(
    name="tanh",
    statement=r"\tanh z = (e^z - e^{-z}) / (e^z + e^{-z})",
    source="DLMF 4.28.3; Stevens, Antiga & Viehmann, Deep Learning with PyTorch, 6.1.4",
    domain=ACTIVATIONS,
    spec=lambda p: [exact.tanh(z) for z in p.z],
    forms=(
        Form("torch.tanh(z)", name="tanh"),
        Form("nn.Tanh()(z)"),
        Form("F.tanh(z)"),
        Form("torch.expm1(2 * z) / (torch.expm1(2 * z) + 2)", regions=("wide", "zero", "core"), name="by-expm1"),
        Form("(torch.exp(z) - torch.exp(-z)) / (torch.exp(z) + torch.exp(-z))", regions=("saturated", "wide", "core")),
        Form("1 - 2 / (torch.exp(2 * z) + 1)", regions=("wide", "core")),
    ),
)

hardtanh = Identity(
    name="hardtanh",
    statement=r"\mathrm{hardtanh}(z) = \min(\max(z, -1), 1), \text{ slope } 0 \text{ at the bounds}",
    source="torch.nn.Hardtanh documentation",
    domain=ACTIVATIONS,
    spec=lambda p: [exact.hardtanh(z) for z in p.z],
    forms=(
        Form("F.hardtanh(z)"),
        Form("nn.Hardtanh()(z)"),
        Form("nn.Hardtanh(-1, 1)(z)"),
        Form("torch.where(z >= 1, 1.0, torch.where(z <= -1, -1.0, z)).to(z)"),
        Form("z * (z.abs() < 1) + torch.sign(z) * (z.abs() >= 1)"),
    ),
)

relu = Identity(
    name="relu",
    statement=r"\mathrm{relu}(z) = \max(z, 0), \text{ slope } 0 \text{ at } 0",
    source="torch.nn.ReLU documentation",
    domain=ACTIVATIONS,
    spec=lambda p: [exact.relu(z) for z in p.z],
    forms=(
        Form("F.relu(z)"),
        Form("nn.ReLU()(z)"),
        Form("torch.relu(z)"),
        Form("F.leaky_relu(z, 0.0)"),
        Form("F.threshold(z, 0.0, 0.0)"),
        Form("torch.where(z > 0, z, 0.0).to(z)"),
        Form("z * (z > 0)"),
        Form("z.masked_fill(z <= 0, 0.0)"),
        Form("z.clamp(min=0)", label="z.clamp(min=0), since 2.14", since="2.14"),
    ),
)

leaky_relu = Identity(
    name="leaky_relu",
    statement=r"\mathrm{leaky}(z) = z \text{ for } z > 0, \; a z \text{ otherwise}",
    source="torch.nn.LeakyReLU documentation",
    domain=ACTIVATIONS,
    spec=lambda p: [exact.leaky_relu(z, p.slope) for z in p.z],
    forms=(
        Form("F.leaky_relu(z, slope)"),
        Form("nn.LeakyReLU(slope)(z)"),
        Form("torch.where(z > 0, z, slope * z)"),
        Form("F.relu(z) + slope * z.clamp(max=0)", until="2.14"),  # whose clamp has slope 0 at its bounds
        Form("z * torch.where(z > 0, 1.0, slope)"),
    ),
)

clamp_at_zero = Identity(
    name="clamp_at_zero",
    statement=r"\max(z, 0) = z + \mathrm{relu}(-z), \text{ slope } 1 \text{ at } 0",
    source="torch.clamp, derivatives.yaml: the gradient passes where min <= z (until PyTorch #191142)",
    domain=ACTIVATIONS,
    spec=lambda p: [z + exact.relu(-z) for z in p.z],
    forms=(
        Form("torch.where(z >= 0, z, 0.0).to(z)"),
        Form("z.clamp(min=0)", until="2.14"),
        Form("torch.clamp_min(z, 0.0)", until="2.14"),
    ),
)

relu_by_clamp = Pitfall(
    name="relu_by_clamp",
    statement="clamp(min=0) has slope 1 at 0, where relu has 0 (until torch 2.14, which gives it 0 as well)",
    source="torch.clamp and torch.nn.ReLU, derivatives.yaml; PyTorch #184574",
    of=relu,
    mistake=Form("z.clamp(min=0)", until="2.14"),
    outcome=Differs(),
    when=_pushed_at_zero,
    relations=(clamp_at_zero,),
)

maximum_of_slopes = Identity(
    name="maximum_of_slopes",
    statement=r"\max(a z, z), \text{ slope } (1 + a) / 2 \text{ at } 0",
    source="torch.maximum, derivatives.yaml: a tie halves the gradient",
    domain=ACTIVATIONS,
    spec=lambda p: [exact.maximum(p.slope * z, z) for z in p.z],
    forms=(
        Form("torch.maximum(slope * z, z)"),
        Form("(torch.maximum(slope * z, z) + torch.maximum(z, slope * z)) / 2"),
    ),
)

leaky_relu_by_maximum = Pitfall(
    name="leaky_relu_by_maximum",
    statement="max(a z, z) has slope (1 + a) / 2 at 0, where leaky relu has a",
    source="PTM section 6.1.4 of the material: leakyRELU(x) = np.maximum(0.1 * x, x)",
    of=leaky_relu,
    mistake=Form("torch.maximum(slope * z, z)"),
    outcome=Differs(),
    when=_pushed_at_zero,
    relations=(maximum_of_slopes,),
)

# --- affine layers ---------------------------------------------------------------------------------------------------


def affine(x: list[Any], weight: list[list[Any]], bias: list[Any]) -> list[Any]:
    """x W' + b of one sample, exactly."""
    return [dot(x, row) + b for row, b in zip(weight, bias, strict=True)]


linear = Identity(
    name="linear",
    statement=r"\mathrm{Linear}(x) = x W^T + b",
    source="torch.nn.Linear documentation",
    domain=layers(),
    spec=lambda p: [affine(x, p.W, p.b) for x in p.x],
    out="RK",
    wrt=("x", "W", "b"),
    forms=(
        Form("F.linear(x, W, b)"),
        Form("x @ W.T + b"),
        Form("torch.matmul(x, W.mT) + b"),
        Form("torch.addmm(b, x, W.T)"),
        Form("torch.einsum('rd,kd->rk', x, W) + b"),
        Form("(W @ x.T).T + b"),
        Form("torch.stack([W @ row + b for row in x])"),
        Form("(x[:, None, :] * W).sum(-1) + b"),
        Form("torch.bmm(x[None], W.T[None])[0] + b"),
        Form("F.linear(torch.cat((x, torch.ones_like(x[:, :1])), 1), torch.cat((W, b[:, None]), 1))"),
        Form(
            "m = nn.Linear(W.shape[1], W.shape[0], dtype=x.dtype)\n"
            "torch.func.functional_call(m, {'weight': W, 'bias': b}, (x,))"
        ),
    ),
)

affine_of_affine = Identity(
    name="affine_of_affine",
    statement=r"(x W_1^T + b_1)\, W_2^T + b_2 = x (W_2 W_1)^T + (W_2 b_1 + b_2)",
    source="Stevens, Antiga & Viehmann, Deep Learning with PyTorch, 6.1.5: without an activation, layers collapse",
    domain=layers(hidden=True),
    spec=lambda p: [affine(affine(x, p.W, p.b), p.W2, p.b2) for x in p.x],
    out="RM",
    wrt=("x", "W", "b", "W2", "b2"),
    forms=(
        Form("F.linear(F.linear(x, W, b), W2, b2)"),
        Form("(x @ W.T + b) @ W2.T + b2"),
        Form("F.linear(x, W2 @ W, W2 @ b + b2)"),
        Form("x @ (W2 @ W).T + (b @ W2.T + b2)"),
        Form(
            "m = nn.Sequential(nn.Linear(1, 1), nn.Linear(1, 1))\n"
            "p = {'0.weight': W, '0.bias': b, '1.weight': W2, '1.bias': b2}\n"
            "torch.func.functional_call(m, p, (x,))"
        ),
    ),
)

parameter_count = Identity(
    name="parameter_count",
    statement=r"|\theta| = h (d + 1) + k (h + 1)",
    source="PTM 7.2.6: 1,574,402 (3072-512-2); DL2025 week 5: 25,153 (784-32-1), 25,186 (784-32-2)",
    domain=sizes(),
    spec=lambda p: p.h * (p.d + 1) + p.k * (p.h + 1),
    out="",
    wrt=(),
    bitwise=True,
    forms=tuple(
        Form(code.replace("NET", f"nn.Sequential(nn.Linear(d, h, device='meta'), {f}nn.Linear(h, k, device='meta'))"))
        for code, f in (
            ("torch.tensor(sum(p.numel() for p in NET.parameters()))", "nn.Tanh(), "),
            ("torch.tensor(sum(p.numel() for p in NET.parameters() if p.requires_grad))", "nn.ReLU(), nn.Dropout(), "),
            ("torch.tensor(sum(math.prod(p.shape) for _, p in NET.named_parameters()))", "nn.Sigmoid(), "),
            ("torch.tensor(nn.utils.parameters_to_vector(NET.parameters()).numel())", "nn.Softmax(dim=1), "),
        )
    ),
)

# --- modules ---------------------------------------------------------------------------------------------------------

module_call = Identity(
    name="module_call",
    statement=r"m(x) = m.\mathrm{forward}(x) \text{ while no hook is set, bitwise}",
    source="Stevens, Antiga & Viehmann, Deep Learning with PyTorch, 6.2.1; torch.nn.Module documentation",
    domain=layers(),
    spec=lambda p: [[1 for _ in row] for row in p.x],
    out="RD",
    wrt=(),
    bitwise=True,
    forms=tuple(
        Form(f"m = {module}\nm(x) == m.forward(x)")
        for module in (
            "nn.Tanh()",
            "nn.ReLU()",
            "nn.LogSoftmax(dim=1)",
            "nn.Linear(x.shape[1], x.shape[1]).to(x)",
            "nn.Sequential(nn.Linear(x.shape[1], 5), nn.Sigmoid(), nn.Linear(5, x.shape[1])).to(x)",
        )
    ),
)

hooked_module = Identity(
    name="hooked_module",
    statement=r"m(x) = h(\mathrm{forward}(x)) \text{ under a forward hook } h, \text{ here } 2 \tanh z",
    source="torch.nn.Module.register_forward_hook documentation",
    domain=ACTIVATIONS,
    spec=lambda p: [2 * exact.tanh(z) for z in p.z],
    forms=(
        Form("2 * nn.Tanh()(z)"),
        Form("m = nn.Tanh()\nm.register_forward_hook(lambda module, x, out: 2 * out)\nm(z)"),
        Form("m = nn.Sequential(nn.Tanh())\nm[0].register_forward_hook(lambda module, x, out: 2 * out)\nm.forward(z)"),
        Form("m = nn.Tanh()\nm.register_forward_hook(lambda module, x, out: 2 * out).remove()\n2 * m(z)"),
        Form("m = nn.Identity()\nm.register_forward_pre_hook(lambda module, x: (2 * torch.tanh(x[0]),))\nm(z)"),
    ),
)

forward_skips_hooks = Pitfall(
    name="forward_skips_hooks",
    statement=r"m.\mathrm{forward}(x) \text{ runs no hook of } m",
    source="Stevens, Antiga & Viehmann, Deep Learning with PyTorch, 6.2.1: y = model.forward(x) is wrong",
    of=hooked_module,
    mistake=Form("m = nn.Tanh()\nm.register_forward_hook(lambda module, x, out: 2 * out)\nm.forward(z)"),
    outcome=Differs(),
    when=lambda p: bool(p["z"].any() or p["g"].any()),
    relations=(tanh,),
)

# --- dropout ---------------------------------------------------------------------------------------------------------

DROPOUTS = dropouts()

dropout_eval = Identity(
    name="dropout_eval",
    statement=r"\text{in evaluation, dropout is the identity, bitwise}",
    source="torch.nn.Dropout documentation; DL2025 week 5, 6.B",
    domain=DROPOUTS,
    spec=lambda p: p.z,
    bitwise=True,
    forms=(
        Form("F.dropout(z, drop, training=False)"),
        Form("nn.Dropout(drop).eval()(z)"),
        Form("nn.Sequential(nn.Dropout(drop), nn.Dropout(0.9)).eval()(z)"),
        Form("F.dropout(z, 0.0)"),
    ),
)

dropout_kept = Identity(
    name="dropout_kept",
    statement=r"\text{what dropout keeps is } z / (1 - p)",
    source="torch.nn.Dropout documentation",
    domain=DROPOUTS,
    spec=lambda p: [z / (1 - exact.total([p.drop])) for z in p.z],
    forms=(
        Form("z / (1 - drop)"),
        *(
            Form(
                "torch.manual_seed(seed)\n"
                f"out = {dropout}\n"
                "torch.manual_seed(seed)\n"
                "kept = F.dropout(torch.ones_like(z), drop) > 0\n"
                "torch.where(kept, out, z / (1 - drop) + out)",
                label=dropout,
                dense_on=("cuda",),  # where the numbers that a seed draws depend on how they lie in memory
            )
            for dropout in ("F.dropout(z, drop)", "nn.Dropout(drop)(z)", "torch.dropout(z, drop, True)")
        ),
    ),
)

dropout_relu = Identity(
    name="dropout_relu",
    statement=r"\mathrm{relu}(\mathrm{dropout}(z)) = \mathrm{dropout}(\mathrm{relu}(z)) \text{ under one mask}",
    source="1 / (1 - p) > 0 and relu(a z) = a relu(z) for a >= 0",
    domain=DROPOUTS,
    spec=lambda p: [1 for _ in p.z],
    wrt=(),
    bitwise=True,
    forms=tuple(
        Form(f"torch.manual_seed(seed)\na = {first}\ntorch.manual_seed(seed)\nb = {second}\na == b", dense_on=("cuda",))
        for first, second in (
            ("F.relu(F.dropout(z, drop))", "F.dropout(F.relu(z), drop)"),
            ("nn.Sequential(nn.Dropout(drop), nn.ReLU())(z)", "nn.Sequential(nn.ReLU(), nn.Dropout(drop))(z)"),
        )
    ),
)
