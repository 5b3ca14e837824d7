"""`list` and `show`: every name is found, and says what a reader needs."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from equivalences import devices, entries
from equivalences.catalogue import FAMILIES, IDENTITIES, PITFALLS
from equivalences.findings.known_defects import KNOWN_DEFECTS
from equivalences.findings.unstable import UNSTABLE
from equivalences.judging import witness
from equivalences.problems import regions
from equivalences.report import formula

Outcome = tuple[int, str, str]


def test_list_and_show_know_everything(command: Callable[..., Outcome]) -> None:
    status, out, _ = command("list")
    assert status == 0
    assert all(name in out for name in (*FAMILIES, *IDENTITIES, *PITFALLS))
    identity = IDENTITIES["softmax"]
    status, out, _ = command("show", "softmax")
    assert status == 0
    described = regions.described(identity.domain)
    assert all(part in out for part in (formula.text(identity.statement), identity.source, *described.values()))
    assert all(line.strip() in out for form in identity.forms for line in str(form.code).splitlines())
    assert "log_softmax-16bit-sum" in out
    for pitfall in PITFALLS.values():
        if pitfall.of is identity:
            assert pitfall.name in out
            assert command("show", pitfall.name)[0] == 0


@pytest.mark.parametrize(
    ("name", "first"),
    [
        ("BCEWithLogitsLoss", "binary_cross_entropy"),
        ("F.binary_cross_entropy_with_logits", "binary_cross_entropy"),
        ("torch.nn.CrossEntropyLoss()", "cross_entropy"),
        ("bce", "binary_cross_entropy"),
        ("ce", "cross_entropy"),
        ("nll", "cross_entropy"),
        ("sigmoid", "sigmoid"),
        ("Adam", "adam_step"),
    ],
)
def test_a_name_is_found_as_pytorch_writes_it(name: str, first: str) -> None:
    assert entries.find(name)[0].name == first


def test_every_name_that_is_listed_is_shown(command: Callable[..., Outcome]) -> None:
    _, listed, _ = command("list")
    names = [line.split()[0] for line in listed.splitlines() if line.startswith("  ")]
    assert len(names) == len(entries.ENTRIES)
    assert all(entries.find(name) for name in names)
    for kind in entries.KINDS[3:]:  # the others have tests of their own
        entry = next(entry for entry in entries.ENTRIES if entry.kind == kind)
        assert entry.name in command("show", entry.name)[1].splitlines()[0]
    _, some, _ = command("list", "CrossEntropyLoss")
    assert "cross_entropy_options" in some
    assert "sigmoid_derivative" not in some


def test_show_says_where_a_form_breaks(command: Callable[..., Outcome]) -> None:
    _, out, _ = command("show", "log_softmax")
    said = out.partition("torch.log(F.softmax(z, dim))")[2].partition("regions:")[0]
    assert "less accurate than the reference must be" in said
    assert "saturated" in said
    assert "wrong or without a bound in: extreme" in command("show", "logsumexp")[1]


def test_show_names_no_defect_of_a_total_where_rows_are_their_own(command: Callable[..., Outcome]) -> None:
    _, out, _ = command("show", "binary_cross_entropy")
    assert "bce-backward-floor" in out
    assert "nll_loss-skipped-folds" not in out
    assert "nll_loss-float16-total" not in out


def test_show_makes_a_report_of_a_known_defect(
    command: Callable[..., Outcome], monkeypatch: pytest.MonkeyPatch
) -> None:
    defect = next(defect for defect in KNOWN_DEFECTS if defect.name == "log_softmax-16bit-sum")
    status, out, _ = command("show", defect.name)
    assert status == 0
    assert defect.why in out
    assert "OUTSIDE" in out
    assert "repeat with torch alone" in out
    monkeypatch.setattr(witness, "witnessed", lambda defect, device: [])  # nothing is outside
    assert "this torch does not have the defect" in command("show", defect.name)[1]


def test_list_and_show_say_what_is_accurate_only_absolutely(command: Callable[..., Outcome]) -> None:
    _, listed, _ = command("list")
    for entry in UNSTABLE:
        assert entry.name in listed
        status, out, _ = command("show", entry.identity)
        assert status == 0
        assert all(
            part in out
            for part in (
                IDENTITIES[entry.identity].form(entry.form).label,
                entry.why,
                entry.who,
                entry.link,
                *entry.formats,
            )
        )


def test_show_says_where_a_witness_can_be_seen(
    command: Callable[..., Outcome], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(devices, "available", lambda: ("cpu",))
    status, out, _ = command("show", "softmax-backward-16bit-products-cuda")
    assert status == 0
    assert "its witness needs a device that is not here: cuda" in out
