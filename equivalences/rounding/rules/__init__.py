"""The rounding rules, by kind of operation; importing them registers them."""

from equivalences.rounding.rules import (  # noqa: F401
    activations,
    arithmetic,
    binary,
    elementary,
    gaussian,
    margins,
    moments,
    movement,
    nll,
    normalisation,
    optimizers,
    powers,
    prims,
    products,
    reductions,
    regression,
    scans,
    softmax,
    units,
)
