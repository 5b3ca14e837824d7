"""One epoch of training: the material's recipes, axis by axis, and the fastest path beside them.

The result of every case is held to the same recipe run in float64: whatever the formulation, the optimiser's
implementation, the loading or the execution, an epoch must end at the same parameters, to half of the format's digits
of the way that they went.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields, replace
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks import data as sets
from benchmarks.compiled import compiled
from benchmarks.fastest import ByHand
from benchmarks.graphs import CudaGraph
from benchmarks.loading import LOADINGS, ORDERS, permutation
from benchmarks.losses import LOSSES, exact_mean, half_of_the_digits, judged
from benchmarks.work import Case
from equivalences.formats import FORMATS

SEED = 1  # the lecture's torch.manual_seed(1)
JUDGED_ROWS = 64
PROFILED_STEPS = 100
BATCHES = ("1", "16", "32", "64", "256", "1024", "full")
IMPLEMENTATIONS = ("default", "foreach", "fused")
EXECUTIONS = ("eager", "compile", "cuda-graph", "by-hand")


@dataclass(frozen=True)
class Network:
    """The material's network for a data set: hidden units, activation, and the rates of its optimisers."""

    hidden: int
    activation: type[nn.Module]
    rates: tuple[tuple[str, float], ...]
    source: str


WEEK5 = Network(32, nn.ReLU, (("SGD", 1e-3), ("Adam", 1e-3)), "DL2025 week 5, 6: 784-32-1, SGD's default rate")
ADAM = Network(128, nn.ReLU, (("SGD", 1e-2), ("Adam", 1e-3)), "Adam notebook: 784-128-10, without its second softmax")
CIFAR2 = Network(512, nn.Tanh, (("SGD", 1e-2), ("Adam", 1e-3)), "chapter 7.2.6: 3072-512-2")
NETWORKS = {"digits28": WEEK5, "mnist": WEEK5, "synthetic": ADAM, "cifar10": CIFAR2, "synthetic-cifar2": CIFAR2}


@dataclass(frozen=True)
class Recipe:
    """Every axis of a training case, as text; the defaults are the lecture's pattern A with mini-batches of 16."""

    data: str = "digits28"
    loss: str = "sigmoid+BCELoss"
    optimizer: str = "SGD"
    implementation: str = "default"
    batch: str = "16"
    loading: str = "dataloader"
    order: str = "given"
    dropout: str = "0"
    execution: str = "eager"

    @property
    def network(self) -> Network:
        return NETWORKS[self.data]

    @property
    def rate(self) -> float:
        return dict(self.network.rates)[self.optimizer]

    @property
    def sensible(self) -> bool:
        """Whether the axes go together: what is by hand has no implementation to choose, and so on."""
        binary = LOSSES[self.loss].target == "binary"
        return not (
            (binary and self.data == "synthetic")  # ten classes
            or (self.execution == "by-hand" and (self.implementation != "default" or self.loss not in BY_HAND))
            or (self.batch == "full" and self.loading not in ("slices", "dataloader"))
        )


BY_HAND = ("sigmoid+BCELoss", "CrossEntropyLoss-one-hot")  # one name for each of the two gradients


def network(recipe: Recipe, features: int, classes: int, seed: int = SEED) -> nn.Sequential:
    """The network as a seed initialises it: Linear, [Dropout], activation, Linear."""
    plan, loss = recipe.network, LOSSES[recipe.loss]
    dropout = [nn.Dropout(float(recipe.dropout))] if float(recipe.dropout) else []
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return nn.Sequential(
            nn.Linear(features, plan.hidden),
            *dropout,
            plan.activation(),
            nn.Linear(plan.hidden, 1 if loss.target == "binary" else classes),
        )


def optimizer(recipe: Recipe, parameters: Iterator[nn.Parameter], **options: Any) -> torch.optim.Optimizer:
    chosen = {} if recipe.implementation == "default" else {recipe.implementation: True}
    kind: Callable[..., torch.optim.Optimizer] = getattr(torch.optim, recipe.optimizer)
    return kind(parameters, lr=recipe.rate, **chosen, **options)


class Training:
    """One epoch of a recipe on a device."""

    def __init__(self, recipe: Recipe, device: str, dtype: torch.dtype = torch.float32) -> None:
        found = sets.load(recipe.data)
        self.recipe, self.device, self.data, self.loss = recipe, device, found, LOSSES[recipe.loss]
        self.samples = len(found.x)
        self.batch = self.samples if recipe.batch == "full" else int(recipe.batch)
        self.steps = -(-self.samples // self.batch)
        self.way = LOADINGS[recipe.loading]
        self.home = device if self.way.resident else "cpu"
        self.x = found.x.to(self.home, dtype)
        target = self.loss.prepared(found.y, found.classes)
        self.target = (target.to(dtype) if target.is_floating_point() else target).to(self.home)
        self.net = network(recipe, found.features, found.classes).to(device, dtype)
        self.initial = [p.detach().clone() for p in self.net.parameters()]
        self.seed = SEED
        self.generator = torch.Generator()
        self.hand: ByHand | None = None
        self.graph: CudaGraph | None = None
        self.cost = self._cost(recipe.execution)
        if recipe.execution == "by-hand":
            tanh, dropout = recipe.network.activation is nn.Tanh, float(recipe.dropout)
            self.hand = ByHand(self.net, tanh=tanh, dropout=dropout, optimizer=recipe.optimizer, rate=recipe.rate)
        self.optimizer = optimizer(recipe, self.net.parameters())
        if recipe.execution == "cuda-graph":
            options = {"capturable": True} if recipe.optimizer == "Adam" else {}
            self.optimizer = optimizer(recipe, self.net.parameters(), **options)
            self.graph = CudaGraph(self.step, self.x[: self.batch], self.target[: self.batch], device)

    def _cost(self, execution: str) -> Callable[[Tensor, Tensor], Tensor]:
        net, loss = self.net, self.loss.function()

        def cost(a: Tensor, b: Tensor) -> Tensor:
            return loss(net(a), b)

        return compiled(cost, self.device) if execution == "compile" else cost

    def reset(self) -> None:
        with torch.no_grad():
            for parameter, initial in zip(self.net.parameters(), self.initial, strict=True):
                parameter.copy_(initial)
        self.net.train()
        if self.hand:
            self.hand.reset()
        for state in self.optimizer.state.values():  # in place: a graph, or compiled code, holds these very tensors
            for tensor in state.values():
                tensor.zero_()
        torch.manual_seed(self.seed)
        self.generator.manual_seed(self.seed)

    def reseed(self, seed: int) -> None:
        """Another initialisation, other masks and another order from the next reset on."""
        drawn = network(self.recipe, self.data.features, self.data.classes, seed)
        for initial, parameter in zip(self.initial, drawn.parameters(), strict=True):
            initial.copy_(parameter.detach())
        self.seed = seed

    def step(self, a: Tensor, b: Tensor) -> None:
        self.cost(a, b).backward()
        self.optimizer.step()
        self.optimizer.zero_grad()

    def run(self) -> None:
        self._train(self.steps)

    def part(self) -> float:
        """The first steps of an epoch; gives the share of an epoch that they are."""
        taken = min(self.steps, PROFILED_STEPS)
        self._train(taken)
        return taken / self.steps

    def _train(self, steps: int) -> None:
        order = permutation(self.recipe.order, self.samples, self.home, self.generator)
        batches = itertools.islice(self.way.epoch(self.x, self.target, self.batch, order, self.device), steps)
        if self.hand:
            with torch.inference_mode():
                for a, b in batches:
                    self.hand.step(a, b)
            return
        step = self.graph or self.step
        for a, b in batches:
            step(a, b)

    # --- what came out -------------------------------------------------------------------------------------------

    def logits(self, x: Tensor) -> Tensor:
        """The network's outputs in float64, without dropout."""
        self.net.eval()
        middle = list(self.net)[1:-1]
        with torch.no_grad():
            w1, b1, w2, b2 = (p.double() for p in self.net.parameters())
            h = nn.functional.linear(x.to(self.device).double(), w1, b1)
            for layer in middle:
                h = layer(h)
            return nn.functional.linear(h, w2, b2).cpu()

    def final_loss(self) -> float:
        """The mean loss over the training rows, in float64."""
        return exact_mean(self.logits(self.data.x), self.data.y)

    def accuracy(self, x: Tensor, y: Tensor) -> float:
        z = self.logits(x)
        guess = (z[:, 0] > 0).long() if z.shape[1] == 1 else z.argmax(1)
        return float((guess == y).double().mean())

    def parameters(self) -> Tensor:
        """All parameters, flat, in float64 on the CPU."""
        return torch.cat([p.detach().flatten().cpu().double() for p in self.net.parameters()])

    def check(self) -> None:
        """The loss is the gate's, and the epoch ends at the parameters of the same epoch in float64."""
        self.reset()
        start = self.parameters()
        self.net.eval()
        with torch.no_grad():
            rows = self.net(self.x[:JUDGED_ROWS].to(self.device))
        self.judgement = judged(self.loss, rows, self.target[:JUDGED_ROWS].to(self.device))
        self.net.train()
        self.run()
        # The A/B driver's --compile on replaces `run`: masks are then drawn as compiled code draws them.
        recipe = replace(self.recipe, execution="compile") if "run" in vars(self) else self.recipe
        expected, spread = expectation(recipe, self.device)
        moved, off = float((expected - start).norm()), float((self.parameters() - expected).norm())
        # Half of the digits of what was learned, and one rounding of every parameter a step.
        rounding = FORMATS["float32"].u * float(expected.norm())
        allowed = half_of_the_digits(torch.float32) * moved + self.steps * rounding + spread
        self.distance = off / moved
        assert off <= allowed, (
            f"an epoch moves the parameters by {moved:.3g} (2-norm) and ends {off:.2g} from where it does in float64, "
            f"where rounding explains {allowed:.2g}"
        )

    def plain(self) -> Training:
        """The work that floating-point operations are counted on: they are the same in batches of any size."""
        loss = "CrossEntropyLoss" if self.loss.target != "binary" else "BCEWithLogitsLoss"
        return Training(Recipe(self.recipe.data, loss, batch="full", loading="slices"), self.device)

    @property
    def bytes(self) -> int:
        """Bytes that one epoch cannot avoid to move: every row, read for the forward and for the backward pass."""
        return 2 * self.samples * self.data.features * self.x.element_size()

    def facts(self) -> dict[str, Any]:
        """After a run: the final loss and accuracies, and what the gate said of the loss."""
        return {
            "steps": self.steps,
            "final loss": self.final_loss(),
            "distance from float64 / way": self.distance,
            "train accuracy": self.accuracy(self.data.x, self.data.y),
            "test accuracy": self.accuracy(self.data.test_x, self.data.test_y),
            "loss error/allowance": self.judgement["error/allowance"],
            "loss error/contract": self.judgement["error/contract"],
        }


def expectation(recipe: Recipe, device: str) -> tuple[Tensor, float]:
    """The parameters after an epoch in float64, and how far (2-norm) this recipe's own random numbers can move them.

    Where the recipe draws the very masks that the float64 run draws, that is not at all; elsewhere (compiled dropout,
    accelerators) masks differ, and twice the largest distance between runs with other masks is allowed.
    """
    head = "CrossEntropyLoss" if LOSSES[recipe.loss].target != "binary" else "BCEWithLogitsLoss"
    # A DataLoader draws from the generator that draws the masks: where there are masks, the loading stays.
    way = recipe.loading if float(recipe.dropout) else "slices"
    plain = replace(recipe, loss=head, implementation="default", loading=way, execution="eager")
    expected = _expected(plain, SEED)
    if not float(recipe.dropout) or (device == "cpu" and recipe.execution != "compile"):
        return expected, 0.0
    return expected, 2 * max(float((_expected(plain, SEED + k) - expected).norm()) for k in range(1, 6))


@lru_cache(maxsize=64)
def _expected(plain: Recipe, masks: int) -> Tensor:
    work = Training(plain, "cpu", torch.float64)
    work.reset()
    torch.manual_seed(masks)
    work.run()
    return work.parameters()


# --- cases -----------------------------------------------------------------------------------------------------------


def case(recipe: Recipe, smoke: bool = False) -> Case:
    """The case of a recipe; fewer rounds where an epoch has many steps."""
    axes = tuple((field.name, str(getattr(recipe, field.name))) for field in fields(recipe))
    graph, pinned = recipe.execution == "cuda-graph", LOADINGS[recipe.loading].accelerators_only
    return Case(
        "training",
        axes,
        lambda device: Training(recipe, device),
        smoke=smoke,
        usual=tuple((field.name, str(field.default)) for field in fields(recipe)),
        group=("data", "batch"),
        rounds={"1": 3, "16": 7}.get(recipe.batch, 10),
        warmup=1 if recipe.batch == "1" else 2,
        devices=("cuda",) if graph else ("accelerator",) if pinned else (),
    )


def base(data: str) -> Recipe:
    """The recipe that the default grid varies: for ten classes and for CIFAR-2, the chapter's loss and order."""
    if data in ("digits28", "mnist"):
        return Recipe(data)
    return Recipe(data, loss="LogSoftmax+NLLLoss", order="shuffled")


def default(data: str) -> Iterator[Recipe]:
    """One axis or two at a time, around the material's recipe."""
    start = base(data)
    hand = replace(start, loss="sigmoid+BCELoss" if start.order == "given" else "CrossEntropyLoss-one-hot")
    for batch in BATCHES:
        for way in ("dataloader", "slices"):
            yield replace(start, batch=batch, loading=way)
        yield replace(hand, batch=batch, loading="slices", execution="by-hand")
    for loss, batch in itertools.product(LOSSES, ("256", "full")):
        yield replace(start, loss=loss, batch=batch, loading="slices")
    for kind, implementation in itertools.product(("SGD", "Adam"), IMPLEMENTATIONS):
        for batch in ("16", "full"):
            yield replace(start, optimizer=kind, implementation=implementation, batch=batch, loading="slices")
    for batch in ("16", "full"):
        yield replace(hand, optimizer="Adam", batch=batch, loading="slices", execution="by-hand")
    for way, order, batch in itertools.product(LOADINGS, ORDERS, ("16", "256")):
        yield replace(start, loading=way, order=order, batch=batch)
    yield replace(start, dropout="0.5")
    for batch, execution in itertools.product(("16", "full"), ("eager", "by-hand")):
        yield replace(hand, dropout="0.5", batch=batch, loading="slices", execution=execution)
    for batch, execution in itertools.product(("16", "256", "full"), ("compile", "cuda-graph")):
        yield replace(start, batch=batch, loading="slices", execution=execution)


def product(data: str) -> Iterator[Recipe]:
    """The full product of the axes."""
    axes = (LOSSES, ("SGD", "Adam"), IMPLEMENTATIONS, BATCHES, LOADINGS, ORDERS, ("0", "0.5"), EXECUTIONS)
    for chosen in itertools.product(*axes):
        yield Recipe(data, *chosen)


SLICES = Recipe(loading="slices")
SMOKE = (
    Recipe(),
    SLICES,
    replace(SLICES, execution="by-hand"),
    replace(SLICES, optimizer="Adam", implementation="fused", batch="256"),
    replace(SLICES, loss="CrossEntropyLoss", batch="256"),
    replace(SLICES, dropout="0.5", batch="256"),
    replace(SLICES, batch="full"),
    replace(SLICES, batch="full", execution="by-hand"),
)


def cases(data: str, full: bool) -> list[Case]:
    smoke = [replace(recipe, data=data) for recipe in SMOKE]  # no set: processes must agree on the order
    recipes = dict.fromkeys(recipe for recipe in (*default(data), *smoke, *(product(data) if full else ())))
    return [case(recipe, recipe in smoke) for recipe in recipes if recipe.sensible]
