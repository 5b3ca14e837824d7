"""Every formulation computes where its inputs are: seen without hardware, on the device `meta`, which has no data."""

from __future__ import annotations

import re
import warnings

import pytest
from torch import Tensor

from equivalences.catalogue import IDENTITIES
from equivalences.judging import judge
from equivalences.model import Form, Identity
from equivalences.running import execute
from equivalences.running.forms import exists, function

MIXED = re.compile(r"same device|expected device|different from other tensors|on device", re.IGNORECASE)


def mixed(identity: Identity, form: Form) -> str:
    """What `meta` says of a form that mixes devices ("": nothing; forms that ask for numbers get none)."""
    fmt = identity.formats[0]
    problem = min(identity.domain.edges(fmt), key=lambda p: sum(getattr(item, "size", 1) for item in p.items.values()))
    items = execute.arguments(identity, problem, judge.layouts(identity)[0], "meta", fmt)
    if identity.wrt:
        items.pop("g", None)
    for name in identity.wrt:
        items[name].requires_grad_()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            out: Tensor = function(form, tuple(items))(**items)
    except Exception as error:
        return str(error) if MIXED.search(str(error)) else ""
    on_device = any(isinstance(item, Tensor) for item in items.values())
    return f"a result on {out.device}" if on_device and out.device.type != "meta" else ""


@pytest.mark.parametrize("identity", IDENTITIES.values(), ids=IDENTITIES)
def test_forms_stay_on_the_device_of_their_inputs(identity: Identity) -> None:
    found = {form.label: mixed(identity, form) for form in identity.forms if exists(form)}
    assert not any(found.values()), {label: said for label, said in found.items() if said}


def test_a_form_that_mixes_devices_is_found() -> None:
    identity = IDENTITIES["module_call"]
    for wrong in (
        "m = nn.Linear(x.shape[1], 3, dtype=x.dtype)\nm(x)",
        "torch.zeros(3)",
        "x + torch.zeros(2, 1).to(x.dtype)",
    ):
        assert mixed(identity, Form(wrong)), wrong
