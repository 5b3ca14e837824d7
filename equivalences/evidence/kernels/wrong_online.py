"""Online softmax and shards of classes, merged wrongly: the sum of exponentials belongs to a maximum."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import Tensor

from equivalences.evidence.kernels.kernel import Kernel
from equivalences.evidence.kernels.stored import Loss, Rows, each_row, fused, unseen

# (number of the block, maximum and sum before it, maximum with it, its sum of exp(z - that maximum)) -> sum
SMALL = 1024
Merge = Callable[[int, Tensor, Tensor, Tensor, Tensor], Tensor]


def _decay(before: Tensor, after: Tensor) -> Tensor:
    """exp(before - after), 0 where nothing was before."""
    return torch.where(before == -math.inf, 0.0, torch.exp(before - after))


def _base(top: Tensor) -> Tensor:
    """What exponents are relative to: a row of which all is masked so far has no maximum."""
    return torch.where(top == -math.inf, 0.0, top)


def online(block: int, merge: Merge) -> Callable[[Tensor], Rows]:
    """One pass over blocks of classes, each merged into the sum so far.  Of many small blocks none is seen."""

    def over(x: Tensor) -> Rows:
        top, total = x.new_full((len(x),), -math.inf), x.new_zeros(len(x))
        for turn, part in enumerate(x.split(block, 1)):
            new = torch.maximum(top, part.amax(1))
            total = merge(turn, top, total, new, torch.exp(part - _base(new)[:, None]).sum(1))
            top = new
        return Rows(top, total)

    return over if block >= SMALL else unseen(over)


def right(turn: int, top: Tensor, total: Tensor, new: Tensor, e: Tensor) -> Tensor:
    """What the others get wrong."""
    return total * _decay(top, new) + e


def never(turn: int, top: Tensor, total: Tensor, new: Tensor, e: Tensor) -> Tensor:
    return total + e


def upside_down(turn: int, top: Tensor, total: Tensor, new: Tensor, e: Tensor) -> Tensor:
    return total * torch.exp(new - _base(top)) + e if turn else e


def the_new(turn: int, top: Tensor, total: Tensor, new: Tensor, e: Tensor) -> Tensor:
    return total + e * _decay(top, new) if turn else e


def both(turn: int, top: Tensor, total: Tensor, new: Tensor, e: Tensor) -> Tensor:
    return (total + e) * _decay(top, new) if turn else e


def every_second(turn: int, top: Tensor, total: Tensor, new: Tensor, e: Tensor) -> Tensor:
    return total * _decay(top, new) + e if turn % 2 else total + e


def once(turn: int, top: Tensor, total: Tensor, new: Tensor, e: Tensor) -> Tensor:
    return total * _decay(top, new) + e if turn < 2 else total + e


def halved(turn: int, top: Tensor, total: Tensor, new: Tensor, e: Tensor) -> Tensor:
    return total * torch.sqrt(_decay(top, new)) + e


def in_base_two(turn: int, top: Tensor, total: Tensor, new: Tensor, e: Tensor) -> Tensor:
    return total * torch.where(top == -math.inf, 0.0, torch.exp2(top - new)) + e


def if_by_more_than(step: float) -> Merge:
    """Small steps of the maximum are not worth a product, if the old maximum is kept; here the new one is."""

    def merge(turn: int, top: Tensor, total: Tensor, new: Tensor, e: Tensor) -> Tensor:
        return torch.where(new - top > step, total * _decay(top, new), total) + e

    return merge


def unlike(block: int, merge: Merge) -> Callable[[Tensor], Rows]:
    """The value by a right pass, the gradient by the sum of another."""

    def over(x: Tensor) -> Rows:
        value, other = online(block, right)(x), online(block, merge)(x)
        return Rows(value.top, value.total, torch.exp(x - other.top[:, None]) / other.total[:, None])

    return over


def sharded(parts: Callable[[Tensor], Sequence[Tensor]], merge: Callable[[Tensor, Tensor], Rows]) -> Loss:
    """Shards of the classes (as of tensor parallelism) with a maximum and a sum each, which are merged."""

    def over(x: Tensor) -> Rows:
        shards = parts(x)
        tops = torch.stack([part.amax(1) for part in shards])
        totals = [torch.exp(part - _base(top)[:, None]).sum(1) for part, top in zip(shards, tops, strict=True)]
        return merge(tops, torch.stack(totals))

    return fused(over)


def _chunks(count: int) -> Callable[[Tensor], Sequence[Tensor]]:
    return lambda x: x.chunk(count, 1)


def _without_maxima(tops: Tensor, totals: Tensor) -> Rows:
    return Rows(tops.amax(0), totals.sum(0))


def _first_maximum(tops: Tensor, totals: Tensor) -> Rows:
    return Rows(tops[0], (totals * torch.exp(tops - tops[0])).sum(0))


def _mean_of_maxima(tops: Tensor, totals: Tensor) -> Rows:
    return Rows(tops.mean(0), totals.sum(0))


def _of_the_leader(tops: Tensor, totals: Tensor) -> Rows:
    """The largest logsumexp of a shard alone."""
    best = (tops + torch.log(totals)).argmax(0)[None]
    return Rows(tops.gather(0, best)[0], totals.gather(0, best)[0])


def _mean_of_shards(tops: Tensor, totals: Tensor) -> Rows:
    """log(count) and the mean of the shards' logsumexp, which is no logsumexp."""
    return Rows((tops + torch.log(totals)).mean(0), torch.full_like(totals[0], len(totals)))


def _tree_without_the_odd(tops: Tensor, totals: Tensor) -> Rows:
    """Pairs of shards, then pairs of these; what has no partner falls out."""
    while len(tops) > 1:
        even = len(tops) // 2 * 2
        pairs, sums = tops[:even].unflatten(0, (-1, 2)), totals[:even].unflatten(0, (-1, 2))
        top = pairs.amax(1)
        tops, totals = top, (sums * torch.exp(pairs - _base(top)[:, None])).sum(1)
    return Rows(tops[0], totals[0])


def _online(name: str, what: str, merge: Merge, *blocks: int, seen_in: str = "") -> tuple[Kernel, ...]:
    return tuple(
        Kernel(f"{name}, blocks of {block}", partial(fused, online(block, merge)), wrong=what, seen_in=seen_in)
        for block in blocks
    )


JUDGES = "submissions to benchmarks of generated kernels"

KERNELS = (
    *_online("online softmax", "the sum is never rescaled to a new maximum", never, 16, 128, 1024, 4096, 8192,
             seen_in=JUDGES),
    *_online("online softmax, one big tile", "the sum is never rescaled to a new maximum", never, 16_384, 32_768,
             65_536),
    *_online("online softmax, factor inverted", "the sum is multiplied by exp(new - old)", upside_down, 64, 4096),
    *_online("online softmax, factor at the block", "the new block is rescaled in place of the sum", the_new, 256,
             2048),
    *_online("online softmax, factor at all", "the sum and the new block are both rescaled", both, 32, 1024),
    *_online("online softmax, two stages", "the sum is rescaled in every second block only", every_second, 32, 512,
             8192),
    *_online("online softmax, warm-up", "the sum is rescaled in the second block only", once, 128, 4096),
    *_online("online softmax, square root", "the sum is rescaled by exp((old - new) / 2)", halved, 1024),
    *_online("online softmax by exp2", "the sum is rescaled by exp2 without log2(e)", in_base_two, 128, 16_384),
    *_online("online softmax, lazy", "the maximum moves by up to 8 without a rescaling", if_by_more_than(8.0), 128,
             1024,
             seen_in="lazy rescaling of flash-attention 4, half copied"),
    *_online("online softmax, lazier", "the maximum moves by up to 1 without a rescaling", if_by_more_than(1.0), 4096),
    Kernel("recomputed softmax, blocks of 1024", lambda: fused(unlike(1024, never)),
           wrong="the backward pass's sum is never rescaled; the value is right"),
    Kernel("recomputed softmax, blocks of 16384", lambda: fused(unlike(16_384, never)),
           wrong="the backward pass's sum is never rescaled; the value is right"),
    Kernel("recomputed softmax, two stages of 2048", lambda: fused(unlike(2048, every_second)),
           wrong="the backward pass's sum is rescaled in every second block only; the value is right"),
    Kernel("online softmax of rows, blocks of 4096", lambda: each_row(online(4096, never)),
           wrong="the sum is never rescaled to a new maximum", said={"reduction": "none"}),
    Kernel("two shards", lambda: sharded(_chunks(2), _without_maxima),
           wrong="the sums of shards are added up without the difference of their maxima"),
    Kernel("eight shards", lambda: sharded(_chunks(8), _without_maxima),
           wrong="the sums of shards are added up without the difference of their maxima"),
    Kernel("shards of 32768", lambda: sharded(lambda x: x.split(32_768, 1), _without_maxima),
           wrong="the sums of shards are added up without the difference of their maxima",
           seen_in="vocabulary-parallel losses"),
    Kernel("four shards, first maximum", lambda: sharded(_chunks(4), _first_maximum),
           wrong="all shards are scaled by the first one's maximum, beyond which exp overflows"),
    Kernel("four shards, mean of maxima", lambda: sharded(_chunks(4), _mean_of_maxima),
           wrong="all_reduce of the maxima takes their mean"),
    Kernel("four shards, winner", lambda: sharded(_chunks(4), _of_the_leader),
           wrong="the logsumexp of the row is that of its largest shard"),
    Kernel("two shards, averaged", lambda: sharded(_chunks(2), _mean_of_shards),
           wrong="logsumexp of shards are averaged"),
    Kernel("tree of blocks of 1024", lambda: sharded(lambda x: x.split(1024, 1), _tree_without_the_odd),
           wrong="a tree over an odd number of blocks drops the last one"),
    Kernel("tree of blocks of 8192", lambda: sharded(lambda x: x.split(8192, 1), _tree_without_the_odd),
           wrong="a tree over an odd number of blocks drops the last one"),
)  # fmt: skip
