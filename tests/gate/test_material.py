"""Every figure of the teaching material that its text determines, reproduced to the digits printed there.

A figure is one output cell: the document, the cell, the text that it prints and the code that must print it.  Text is
compared with text, so no tolerance is involved.  Only the autograd note (``grad_fn=<SoftmaxBackward0>``) is left out of
the printed text: it names PyTorch's internals, not a number, and its wording changed between releases.

Left out, because the text does not determine them: runs on downloaded images, on unseeded data or from an unseeded
initialisation (MNIST, CIFAR-10, the temperatures, NumPy's random digits), and three lines of the `nn.Module` runs (see
there).
"""

from __future__ import annotations

import copy
import itertools
import math
import warnings
from collections.abc import Callable, Container
from dataclasses import dataclass
from functools import partial
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

POST = "softmax-cross-entropy-post"
NOTEBOOK = "softmax-cross-entropy-notebook"
ADAM = "adam-notebook"
LECTURE = "dl2025-week5"
CHAPTERS = "ptm-chapters-6-7"


@dataclass(frozen=True)
class Figure:
    document: str
    cell: str
    printed: str
    compute: Callable[[], Any]


# --- Softmax & cross-entropy: the notebook and the post --------------------------------------------------------------

Z123 = torch.tensor([1.0, 2.0, 3.0])

TOY_X = torch.tensor(
    [[1, 2, 1, 1], [2, 1, 3, 2], [3, 1, 3, 4], [4, 1, 5, 5], [1, 7, 5, 5], [1, 2, 5, 6], [1, 6, 6, 6], [1, 7, 7, 7]],
    dtype=torch.float32,
)
TOY_Y = torch.tensor([2, 2, 2, 1, 1, 1, 0, 0])


def draw(cells: str) -> tuple[Tensor, Tensor, nn.Linear]:
    """Logits, labels and the 4-3 model that the generator seeded with 1 deals to the drawing cells run in this order.

    `z` is the cell with `torch.rand(3, 5)`, `y` the one with `torch.randint(5, (3,))`; `nn.Linear(4, 3)` comes last.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        for cell in cells:
            if cell == "z":
                z = torch.rand(3, 5)
            else:
                y = torch.randint(5, (3,))
        return z, y, nn.Linear(4, 3)


Z, Y, NOTEBOOK_MODEL = draw("zy")
# The post shows no seed.  All its figures follow from the notebook's, had both cells been run again in this order.
POST_Z, POST_Y, POST_MODEL = draw("zyyz")


def one_hot_cost(z: Tensor, y: Tensor) -> Tensor:
    """Cross entropy a row, by its definition: the one-hot rows of `y` times -log softmax of the rows of `z`."""
    hypothesis = F.softmax(z, dim=1)
    y_one_hot = torch.zeros_like(hypothesis).scatter_(1, y.unsqueeze(1), 1)
    return (y_one_hot * -torch.log(hypothesis)).sum(dim=1)


def one_hot_mean(z: Tensor, y: Tensor) -> Tensor:
    return one_hot_cost(z, y).mean()


def train(parameters: list[Tensor], cost: Callable[[], Tensor], omit: Container[int] = ()) -> str:
    """The lines, one each 100 epochs, that 1,001 steps of gradient descent at rate 0.1 print; without epochs `omit`."""
    optimizer = torch.optim.SGD(parameters, lr=0.1)
    lines = []
    for epoch in range(1001):
        loss = cost()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if epoch % 100 == 0 and epoch not in omit:
            lines.append(f"Epoch {epoch:4d}/1000 Cost: {loss.item():.6f}")
    return "\n".join(lines)


def train_from_zero(cost: Callable[[Tensor, Tensor], Tensor], dtype: torch.dtype) -> str:
    W, b = torch.zeros((4, 3), dtype=dtype, requires_grad=True), torch.zeros(1, dtype=dtype, requires_grad=True)
    x = TOY_X.to(dtype)
    return train([W, b], lambda: cost(x.matmul(W) + b, TOY_Y))


def train_module(drawn: nn.Linear, omit: Container[int]) -> str:
    """The `nn.Module` run from the float32 initialisation as drawn, in float64.

    In float32 the rounding that accumulates is as large as half a unit of the sixth digit (up to 7e-7 was seen, with
    torch 2.13's kernels without vector instructions), so some lines depend on the machine.  float64 decides that digit
    on every line; at the epochs `omit` it decides against the document, whose machine rounded to the neighbour.
    """
    model = copy.deepcopy(drawn).double()
    return train(list(model.parameters()), lambda: F.cross_entropy(model(TOY_X.double()), TOY_Y), omit)


LOG_SOFTMAX = """\
tensor([[-1.3301, -1.8084, -1.6846, -1.3530, -2.0584],
        [-1.4147, -1.8174, -1.4602, -1.6450, -1.7758],
        [-1.5025, -1.6165, -1.4586, -1.8360, -1.6776]])"""

COSTS_FROM_ZERO = """\
Epoch    0/1000 Cost: 1.098612
Epoch  100/1000 Cost: 0.761050
Epoch  200/1000 Cost: 0.689991
Epoch  300/1000 Cost: 0.643229
Epoch  400/1000 Cost: 0.604117
Epoch  500/1000 Cost: 0.568255
Epoch  600/1000 Cost: 0.533922
Epoch  700/1000 Cost: 0.500291
Epoch  800/1000 Cost: 0.466908
Epoch  900/1000 Cost: 0.433507
Epoch 1000/1000 Cost: 0.399962"""

TOY_COSTS: list[tuple[str, Callable[[Tensor, Tensor], Tensor]]] = [
    ("In [25] low level", one_hot_mean),
    ("In [26] cross_entropy", F.cross_entropy),
]

NOTEBOOK_FIGURES = [
    Figure(NOTEBOOK, "In [4]", "tensor([0.0900, 0.2447, 0.6652])", lambda: F.softmax(Z123, dim=0)),
    Figure(NOTEBOOK, "In [5]", "tensor(1.)", lambda: F.softmax(Z123, dim=0).sum()),
    Figure(
        NOTEBOOK,
        "In [6] logits",
        """\
tensor([[0.7576, 0.2793, 0.4031, 0.7347, 0.0293],
        [0.7999, 0.3971, 0.7544, 0.5695, 0.4388],
        [0.6387, 0.5247, 0.6826, 0.3051, 0.4635]])""",
        lambda: Z,
    ),
    Figure(
        NOTEBOOK,
        "In [6] softmax",
        """\
tensor([[0.2645, 0.1639, 0.1855, 0.2585, 0.1277],
        [0.2430, 0.1624, 0.2322, 0.1930, 0.1694],
        [0.2226, 0.1986, 0.2326, 0.1594, 0.1868]])""",
        lambda: F.softmax(Z, dim=1),
    ),
    Figure(NOTEBOOK, "In [7]", "tensor([0, 2, 1])", lambda: Y),
    Figure(
        NOTEBOOK,
        "In [8]",
        """\
tensor([[1., 0., 0., 0., 0.],
        [0., 0., 1., 0., 0.],
        [0., 1., 0., 0., 0.]])""",
        lambda: torch.zeros_like(Z).scatter_(1, Y.unsqueeze(1), 1),
    ),
    Figure(NOTEBOOK, "In [9] rows", "tensor([1.3301, 1.4602, 1.6165])", lambda: one_hot_cost(Z, Y)),
    Figure(NOTEBOOK, "In [9] mean", "tensor(1.4689)", lambda: one_hot_mean(Z, Y)),
    Figure(NOTEBOOK, "In [10] log of softmax", LOG_SOFTMAX, lambda: torch.log(F.softmax(Z, dim=1))),
    Figure(NOTEBOOK, "In [11] log_softmax", LOG_SOFTMAX, lambda: F.log_softmax(Z, dim=1)),
    Figure(NOTEBOOK, "In [12] low level", "tensor(1.4689)", lambda: one_hot_mean(Z, Y)),
    Figure(NOTEBOOK, "In [14] nll_loss", "tensor(1.4689)", lambda: F.nll_loss(F.log_softmax(Z, dim=1), Y)),
    Figure(NOTEBOOK, "In [15] cross_entropy", "tensor(1.4689)", lambda: F.cross_entropy(Z, Y)),
    *(
        Figure(NOTEBOOK, f"{cell}, {dtype}", COSTS_FROM_ZERO, partial(train_from_zero, cost, dtype))
        for cell, cost in TOY_COSTS
        for dtype in (torch.float32, torch.float64)  # as in the document, and without its rounding
    ),
    Figure(
        NOTEBOOK,
        "In [29] nn.Module",
        """\
Epoch    0/1000 Cost: 1.849513
Epoch  100/1000 Cost: 0.689894
Epoch  300/1000 Cost: 0.551218
Epoch  400/1000 Cost: 0.500141
Epoch  500/1000 Cost: 0.451947
Epoch  600/1000 Cost: 0.405051
Epoch  700/1000 Cost: 0.358733
Epoch  800/1000 Cost: 0.312912
Epoch 1000/1000 Cost: 0.241922""",
        lambda: train_module(NOTEBOOK_MODEL, omit={200, 900}),
    ),
]

POST_FIGURES = [
    Figure(POST, "Softmax", "tensor([0.0900, 0.2447, 0.6652])", lambda: F.softmax(Z123, dim=0)),
    Figure(POST, "Softmax, sum", "tensor(1.)", lambda: F.softmax(Z123, dim=0).sum()),
    Figure(
        POST,
        "Cross Entropy, softmax",
        """\
tensor([[0.1703, 0.2118, 0.1857, 0.1963, 0.2359],
        [0.2328, 0.2268, 0.1060, 0.2356, 0.1987],
        [0.3189, 0.2760, 0.1258, 0.1234, 0.1559]])""",
        lambda: F.softmax(POST_Z, dim=1),
    ),
    Figure(POST, "Cross Entropy, labels", "tensor([2, 1, 0])", lambda: POST_Y),
    Figure(POST, "Cross Entropy, nll_loss", "tensor(1.4368)", lambda: F.nll_loss(F.log_softmax(POST_Z, dim=1), POST_Y)),
    Figure(POST, "Cross Entropy, cross_entropy", "tensor(1.4368)", lambda: F.cross_entropy(POST_Z, POST_Y)),
    Figure(
        POST,
        "nn.Module",
        """\
Epoch    0/1000 Cost: 1.777960
Epoch  100/1000 Cost: 0.654127
Epoch  200/1000 Cost: 0.561501
Epoch  300/1000 Cost: 0.505037
Epoch  400/1000 Cost: 0.460010
Epoch  500/1000 Cost: 0.420253
Epoch  600/1000 Cost: 0.383131
Epoch  700/1000 Cost: 0.347032
Epoch  800/1000 Cost: 0.310779
Epoch 1000/1000 Cost: 0.244281""",
        lambda: train_module(POST_MODEL, omit={900}),
    ),
]

# --- The Adam notebook -----------------------------------------------------------------------------------------------

ADAM_FIGURES = [
    Figure(
        ADAM,
        "In [112]",
        "tensor(0.1944)",
        lambda: nn.CrossEntropyLoss()(torch.tensor([[2.5, 0.3, -1.2], [0.1, 2.0, 0.1]]), torch.tensor([0, 1])),
    ),
]

# --- The lecture of week 5 -------------------------------------------------------------------------------------------

ROWS5 = torch.tensor([[-2.0, -2.0, 0.0], [3.14, 3.14, 3.14], [0.0, 0.0, 2.0], [2.0, 2.0, 4.0], [0.0, 0.0, 0.0]])
LABELS5 = torch.tensor([2, 1, 2, 2, 0])
SIGMOID_Z = torch.tensor([-1.0, 0.0, 1.0]).reshape(-1, 1)
SIGMOID_Y = torch.tensor([0.0, 0.0, 1.0]).reshape(-1, 1)
SOFTMAX_Z = torch.tensor([[3.0, 2.0], [2.0, 2.0], [5.0, 6.0]])
SOFTMAX_Y = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
PAIR = (0.1353, 1.0000)  # exp(-2) and exp(0) as the lecture copies them from the table above


def implicit_softmax(z: Tensor) -> Tensor:
    """`nn.Softmax()` of a matrix: the right dimension, and a warning that it had to be guessed."""
    with pytest.warns(UserWarning, match=r"^Implicit dimension choice for softmax has been deprecated\."):
        result: Tensor = nn.Softmax()(z)
    return result


def manual_bce(z: Tensor, y: Tensor) -> Tensor:
    yhat = torch.sigmoid(z)
    return -torch.sum(torch.log(yhat) * y + torch.log(1 - yhat) * (1 - y)) / 3


def error(call: Callable[[], object]) -> str:
    """The last line of the traceback that `call` ends with."""
    with pytest.raises(IndexError) as caught:
        call()
    return f"{caught.type.__name__}: {caught.value}"


DIM0 = """\
tensor([[0.0041, 0.0041, 0.0115],
        [0.7081, 0.7081, 0.2653],
        [0.0306, 0.0306, 0.0848],
        [0.2265, 0.2265, 0.6269],
        [0.0306, 0.0306, 0.0115]])"""

DIM1 = """\
tensor([[0.1065, 0.1065, 0.7870],
        [0.3333, 0.3333, 0.3333],
        [0.1065, 0.1065, 0.7870],
        [0.1065, 0.1065, 0.7870],
        [0.3333, 0.3333, 0.3333]])"""

LECTURE_FIGURES = [
    Figure(LECTURE, "In [66] dim=0", DIM0, lambda: nn.Softmax(dim=0)(ROWS5)),
    Figure(LECTURE, "In [69] dim=1", DIM1, lambda: nn.Softmax(dim=1)(ROWS5)),
    Figure(LECTURE, "In [72] dim not given", DIM1, lambda: implicit_softmax(ROWS5)),
    Figure(
        LECTURE,
        "In [74]",
        """\
tensor([[ 0.1353,  0.1353,  1.0000],
        [23.1039, 23.1039, 23.1039],
        [ 1.0000,  1.0000,  7.3891],
        [ 7.3891,  7.3891, 54.5981],
        [ 1.0000,  1.0000,  1.0000]])""",
        lambda: torch.exp(ROWS5),
    ),
    Figure(
        LECTURE,
        "In [75] by hand",
        "(0.10648512513773022, 0.10648512513773022, 0.7870297497245397)",
        lambda: tuple(PAIR[i] / (PAIR[0] + PAIR[0] + PAIR[1]) for i in (0, 0, 1)),
    ),
    Figure(
        LECTURE,
        "In [76]",
        "tensor([0.3333, 0.3333, 0.3333])",
        lambda: torch.exp(ROWS5[1]) / torch.exp(ROWS5[1]).sum(),
    ),
    Figure(LECTURE, "In [78] formula", "tensor(0.4399)", lambda: manual_bce(SIGMOID_Z, SIGMOID_Y)),
    Figure(LECTURE, "In [79] BCELoss", "tensor(0.4399)", lambda: nn.BCELoss()(torch.sigmoid(SIGMOID_Z), SIGMOID_Y)),
    Figure(
        LECTURE, "In [80] BCEWithLogitsLoss", "tensor(0.4399)", lambda: nn.BCEWithLogitsLoss()(SIGMOID_Z, SIGMOID_Y)
    ),
    Figure(
        LECTURE,
        "In [81]",
        """\
tensor([[0.2689, 0.7311],
        [0.5000, 0.5000],
        [0.7311, 0.2689]])""",
        lambda: torch.concat([torch.sigmoid(SIGMOID_Z), 1 - torch.sigmoid(SIGMOID_Z)], dim=1),
    ),
    Figure(
        LECTURE,
        "In [83]",
        """\
tensor([[0.7311, 0.2689],
        [0.5000, 0.5000],
        [0.2689, 0.7311]])""",
        lambda: implicit_softmax(SOFTMAX_Z),
    ),
    Figure(
        LECTURE,
        "In [84] formula",
        "tensor(0.4399)",
        lambda: -torch.sum(torch.log(implicit_softmax(SOFTMAX_Z)) * SOFTMAX_Y) / 3,
    ),
    Figure(LECTURE, "In [85] one-hot", "tensor(0.4399)", lambda: nn.CrossEntropyLoss()(SOFTMAX_Z, SOFTMAX_Y)),
    # The cell's caption says "labels 0 and 1", but its code passes the one-hot matrix again; this is what it means.
    Figure(
        LECTURE, "In [86] index", "tensor(0.4399)", lambda: nn.CrossEntropyLoss()(SOFTMAX_Z, SOFTMAX_Y.argmax(dim=1))
    ),
    Figure(
        LECTURE,
        "In [87]",
        """\
tensor([[0, 0, 1],
        [0, 1, 0],
        [0, 0, 1],
        [0, 0, 1],
        [1, 0, 0]])""",
        lambda: F.one_hot(LABELS5),
    ),
    Figure(
        LECTURE,
        "In [88] one-hot",
        "tensor(0.5832)",
        lambda: nn.CrossEntropyLoss()(ROWS5, F.one_hot(LABELS5).float()),
    ),
    Figure(LECTURE, "In [89] index", "tensor(0.5832)", lambda: nn.CrossEntropyLoss()(ROWS5, LABELS5)),
    Figure(
        LECTURE,
        "In [90] formula",
        "tensor(0.5832)",
        lambda: -torch.sum(torch.log(implicit_softmax(ROWS5)) * F.one_hot(LABELS5)) / 5,
    ),
    Figure(
        LECTURE,
        "In [386]",
        "IndexError: Target 1 is out of bounds.",
        lambda: error(lambda: F.nll_loss(torch.exp(F.logsigmoid(SIGMOID_Z)), SIGMOID_Y.flatten().long())),
    ),
]

# --- Chapters 6 and 7 ------------------------------------------------------------------------------------------------

TANH = """\
-0.9757431300314515
0.09966799462495582
0.9866142981514303"""
TANH_AT = (-2.2, 0.1, 2.5)

# The fitted parameters of section 6.2.2 are not determined by the text, but they are printed in it.
TEMPERATURE = nn.Linear(1, 1).requires_grad_(False)
TEMPERATURE.weight.fill_(0.7634)
TEMPERATURE.bias.fill_(0.4294)


def network(*widths: int, activation: type[nn.Module]) -> nn.Sequential:
    """Fully connected layers of these widths, without storage for their parameters: only shapes are asked for."""
    layers: list[nn.Module] = []
    for n_in, n_out in itertools.pairwise(widths):
        layers += [nn.Linear(n_in, n_out, device="meta"), activation()]
    return nn.Sequential(*layers[:-1])


def parameter_counts(model: nn.Module) -> tuple[int, list[int]]:
    counts = [p.numel() for p in model.parameters() if p.requires_grad]
    return sum(counts), counts


CHAPTERS_FIGURES = [
    Figure(CHAPTERS, "6.1.3 math.tanh", TANH, lambda: "\n".join(str(math.tanh(x)) for x in TANH_AT)),
    Figure(
        CHAPTERS,
        "6.1.3 torch.tanh",
        TANH,
        lambda: "\n".join(str(y) for y in torch.tanh(torch.tensor(TANH_AT, dtype=torch.float64)).tolist()),
    ),
    Figure(CHAPTERS, "6.2.2 one input", "tensor([1.1928])", lambda: TEMPERATURE(torch.ones(1))),
    Figure(
        CHAPTERS,
        "6.2.2 ten inputs",
        "tensor([[1.1928],\n" + 8 * "        [1.1928],\n" + "        [1.1928]])",
        lambda: TEMPERATURE(torch.ones(10, 1)),
    ),
    Figure(
        CHAPTERS,
        "6.3.2",
        "[torch.Size([13, 1]), torch.Size([13]), torch.Size([1, 13]), torch.Size([1])]",
        lambda: [p.shape for p in network(1, 13, 1, activation=nn.Tanh).parameters()],
    ),
    Figure(CHAPTERS, "7.2.4 by hand", "tensor([0.0900, 0.2447, 0.6652])", lambda: Z123.exp() / Z123.exp().sum()),
    Figure(CHAPTERS, "7.2.4 sum", "tensor(1.)", lambda: (Z123.exp() / Z123.exp().sum()).sum()),
    Figure(
        CHAPTERS,
        "7.2.4 nn.Softmax",
        """\
tensor([[0.0900, 0.2447, 0.6652],
        [0.0900, 0.2447, 0.6652]])""",
        lambda: nn.Softmax(dim=1)(torch.stack([Z123, Z123])),
    ),
    Figure(
        CHAPTERS,
        "7.2.6",
        "(1574402, [1572864, 512, 1024, 2])",
        lambda: parameter_counts(network(3072, 512, 2, activation=nn.Tanh)),
    ),
]

# The lecture compares its two networks by their number of parameters (section E) without printing either number.
COUNTED = [
    Figure(
        LECTURE, "In [271] one output", "25153", lambda: parameter_counts(network(784, 32, 1, activation=nn.ReLU))[0]
    ),
    Figure(
        LECTURE, "In [302] two outputs", "25186", lambda: parameter_counts(network(784, 32, 2, activation=nn.ReLU))[0]
    ),
]

FIGURES = [*NOTEBOOK_FIGURES, *POST_FIGURES, *ADAM_FIGURES, *LECTURE_FIGURES, *CHAPTERS_FIGURES, *COUNTED]


def text(value: object) -> str:
    """What a notebook prints for `value`, without the autograd note."""
    return str(value.detach() if isinstance(value, Tensor) else value)


@pytest.mark.parametrize("figure", FIGURES, ids=lambda figure: f"{figure.document}: {figure.cell}")
def test_figure(figure: Figure) -> None:
    assert text(figure.compute()) == figure.printed


def test_an_explicit_dimension_does_not_warn() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        nn.Softmax(dim=1)(ROWS5)
