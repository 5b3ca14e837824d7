"""Kernels of strangers: a sound table, what public judges accept of it, and what `check` says of a few."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from equivalences import check
from equivalences.catalogue import IDENTITIES
from equivalences.evidence.kernels import KERNELS, RIGHT, WRONG
from equivalences.evidence.kernels.kernel import Kernel
from equivalences.evidence.peers.public import JUDGES, accepts
from equivalences.formats import FORMATS
from equivalences.own.losses import LOSSES
from equivalences.report.kernels import Shown, page

BY_NAME = {kernel.name: kernel for kernel in KERNELS}


def test_the_table_is_sound() -> None:
    assert len(BY_NAME) == len(KERNELS)
    assert not any(kernel.wrong for kernel in RIGHT)
    assert all(kernel.wrong for kernel in WRONG)
    assert all(kernel.of in {*LOSSES, *IDENTITIES} for kernel in KERNELS)
    assert all(kernel.formats and set(kernel.formats) <= set(FORMATS) for kernel in KERNELS)


def test_each_kernel_can_be_built() -> None:
    for kernel in KERNELS:
        try:
            assert callable(kernel.build())
        except ImportError:  # it needs what is not installed
            continue


def zeros(z: Tensor, dim: int) -> Tensor:
    return torch.zeros_like(z) + 0 * z


def half(z: Tensor, y: Tensor) -> Tensor:
    return F.cross_entropy(z, y) / 2


def test_public_judges_accept_what_pytorch_gives_and_not_half_of_it() -> None:
    for judge in JUDGES:
        assert accepts(judge, Kernel("own", lambda: F.cross_entropy), "float32")
        assert not accepts(judge, Kernel("half", lambda: half), "float32")
        assert (
            accepts(judge, Kernel("of an identity that they do not have", lambda: half, of="logsumexp"), "float32")
            is None
        )


def test_a_softmax_of_zeros_is_right_for_those_who_allow_a_hundredth() -> None:
    nothing = Kernel("zeros", lambda: zeros, of="softmax", wrong="nothing is computed")
    said = {judge.name: accepts(judge, nothing, "float32") for judge in JUDGES}
    assert said["BackendBench"]
    assert not said["assert_close"]


@pytest.mark.parametrize("name", ["two passes, blocks of 1024", "online softmax, blocks of 16"])
def test_check_says_what_is_true(name: str) -> None:
    kernel = BY_NAME[name]
    report = check(
        kernel.build(),
        kernel.of,
        formats=("float32",),
        examples=0,
        many_rows=False,
        stop=bool(kernel.wrong),
        **kernel.said,
    )
    assert report.ok is not bool(kernel.wrong)


def test_the_page_counts_and_names_what_is_missed() -> None:
    right, wrong = Kernel("a", lambda: half), Kernel("b", lambda: half, wrong="half of it")
    asked = {judge.name: ("float32",) for judge in JUDGES}
    some = [Shown(right, {"float32": True}, asked, asked), Shown(wrong, {"float32": True}, {}, asked)]
    text = page(some, "torch 9.9")
    assert "`check` calls 1 of 1 right kernels right in every format, and refuses 0 of 1 wrong ones" in text
    assert "**not so in float32**" in text
    assert "| half of it |" in text
