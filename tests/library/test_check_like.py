"""`check(like=...)`: as good as a formula, by name or as a function; what is exact stays, and the report names it."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from equivalences import check
from equivalences.catalogue import IDENTITIES
from equivalences.own import formulas
from equivalences.own.losses import LOSSES, Case, WrongCall
from equivalences.own.severity import Severity

ONE: dict[str, Any] = {"formats": ("float32",), "layouts": ("contiguous",), "examples": 6, "shape": (7, 3)}
FEW: dict[str, Any] = {
    "formats": ("float32",), "layouts": ("contiguous",), "examples": 0, "many_rows": False, "many_classes": False,
}  # fmt: skip


def by_lse(z: Tensor, y: Tensor) -> Tensor:
    return (torch.logsumexp(z, 1) - z.gather(1, y[:, None])[:, 0]).mean()


def by_log_softmax(z: Tensor, y: Tensor) -> Tensor:
    return -F.log_softmax(z, 1).gather(1, y[:, None]).mean()


@pytest.mark.parametrize("like", ["logsumexp - target logit", by_lse, (by_log_softmax, by_lse)])
def test_a_kernel_that_is_as_good_as_a_formula_is_right_and_says_so(like: Any) -> None:
    assert check(by_lse, **ONE).failures() == ("unstable",)
    report = check(by_lse, like=like, **ONE)
    report.raise_if_failed()
    assert report.severity is Severity.RIGHT
    (name,) = (each.formula for each in report.needed if each.numbers)
    assert name == (like if isinstance(like, str) else "by_lse")
    (need,) = (each for each in report.needed if each.numbers)
    assert report.headline == (
        f"right, as {name} is; beyond cross_entropy's own contract in {need.numbers:,} of {report.numbers:,} numbers "
        f"(worst {need.ratio:.3g} times, at a common offset)"
    )
    assert need.ratio > 1


def test_the_contract_is_the_formulas_and_no_more() -> None:
    report = check(lambda z, y: by_lse(z, y) * (1 + 2.0**-12), like="logsumexp - target logit", **ONE)
    assert "wrong" in report.failures()
    exactly = check(lambda z, y: F.cross_entropy(z, y), like="logsumexp - target logit", **ONE)
    assert exactly.headline == "right: every number is within the contract"
    assert not exactly.needed


def test_a_formula_may_be_undefined_at_special_values_and_nothing_else_is() -> None:
    report = check(by_lse, like="logsumexp - target logit", **FEW)
    report.raise_if_failed()
    assert [each.special for each in report.needed] == [2]
    assert "2 special values are not finite, as with it" in str(report)

    def swallowed(z: Tensor, y: Tensor) -> Tensor:
        return by_lse(torch.where(z != z, 0.0, z), y)

    assert check(swallowed, like=swallowed, **FEW).failures() == ("special value",)


@pytest.mark.parametrize("formula", formulas.FORMULAS, ids=lambda each: f"{each.name}, {each.of[0]}")
def test_every_formula_with_a_name_is_the_same_function(formula: formulas.Formula) -> None:
    for of in formula.of:
        if of in LOSSES:
            cases = LOSSES[of].cases(LOSSES[of].supports, ("none", "mean", "sum"), ("contiguous", "inner"))
        else:
            cases = [Case(of, IDENTITIES[of])]
        for case in cases:
            (liked,) = formulas.identities(case, [(formula.name, formula.code)]).values()
            for problem in case.identity.domain.edges("float32")[-30::6]:
                formulas.same(case.identity, formula.name, liked, problem)


@pytest.mark.parametrize(
    ("like", "said"),
    [
        ("log softmax", "unknown formula like='log softmax' of cross_entropy: .*log of softmax"),
        ("softplus", "unknown formula like='softplus' of cross_entropy: choose from logsumexp - target logit, "),
        (lambda z, y: F.cross_entropy(z, y) + 1e-3, "like='<lambda>' is another function: its value is .* without any"),
        (lambda z, y: F.cross_entropy(z, (y + 1) % z.shape[1]), "like='<lambda>' is another function"),
        (lambda z: z, "like='<lambda>' cannot be followed: TypeError: "),
        (
            lambda z, y: torch.erfinv(F.cross_entropy(z, y)),
            "cannot be followed: Untracked: aten::erfinv has no rounding",
        ),
    ],
)
def test_a_formula_that_is_none_is_one_clear_line(like: Any, said: str) -> None:
    with pytest.raises(WrongCall, match=said) as caught:
        check(by_lse, like=like, **ONE)
    assert "\n" not in str(caught.value)


def test_binary_losses_and_identities_have_formulas_too() -> None:
    of: dict[str, Any] = {"of": "binary_cross_entropy_with_logits", **ONE, "shape": (9,), "examples": 20}

    def textbook(z: Tensor, t: Tensor) -> Tensor:
        s = torch.sigmoid(z)
        return -(torch.where(t > 0, torch.log(s), torch.log(1 - s))).mean()

    assert not check(textbook, **of).ok
    report = check(textbook, like="log of sigmoid", **of)
    report.raise_if_failed()
    assert f"of {sum(each.unbounded for each in report.needed)} of them it has no bound" in str(report)
    softmax = check(lambda z, dim: torch.log(F.softmax(z, dim)), "log_softmax", like="log of softmax", **ONE)
    softmax.raise_if_failed()
