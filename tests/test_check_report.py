"""What the report of `check` says beside its verdicts: what was tried, where it fails, and how to repeat it."""

from __future__ import annotations

from typing import Any

import torch.nn.functional as F
from torch import Tensor

from equivalences import check

BRIEF: dict[str, Any] = {"formats": ("float32",), "layouts": ("contiguous",), "examples": 0}


def test_the_report_says_which_sizes_were_tried() -> None:
    met = set()

    def loss(z: Tensor, y: Tensor) -> Tensor:
        met.add(tuple(z.shape))
        return F.cross_entropy(z, y)

    report = check(loss, **{**BRIEF, "examples": 5})
    sizes = {"rows": [rows for rows, _ in met], "classes": [classes for _, classes in met]}
    assert report.tried == {what: (min(each), max(each)) for what, each in sizes.items()}
    (low, high), (fewest, most) = report.tried["rows"], report.tried["classes"]
    assert f"  tried     rows {low}-{high}, classes {fewest}-{most}\n" in str(report)
    one = check(loss, formats=("float32",), examples=1, shape=(3, 130))
    assert "  tried     rows 3, classes 130\n" in str(one)
    binary = check(F.binary_cross_entropy_with_logits, "binary_cross_entropy_with_logits", **BRIEF)
    assert list(binary.tried) == ["rows"]
