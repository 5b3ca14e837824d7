"""Exact values as float64 arrays with rigorous radii: what the oracle hands to the judge, and how errors are bounded."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from flint import arb

from .formats import FORMATS

Float64 = npt.NDArray[np.float64]

_BINARY64 = FORMATS["float64"]


@dataclass(frozen=True, eq=False)
class Enclosure:
    """Exact values in float64: each lies in (hi + lo +- radius) / 2**shift; an infinite radius: nothing is known.

    `hi` is the float64 nearest to the midpoint, `lo` the float64 nearest to the rest, `radius` an upper bound.
    An exact infinity has hi = +-inf and radius 0.  Numbers near the subnormals of float64 are scaled up by 2**shift,
    so that an error is known to a fraction of the spacing there too.
    """

    hi: Float64
    lo: Float64
    radius: Float64
    shift: npt.NDArray[np.int64] | int = 0

    @property
    def nearest(self) -> Float64:
        """The exact values, rounded to float64."""
        return np.asarray(np.ldexp(self.hi, -np.asarray(self.shift)), dtype=np.float64)

    def error(self, got: npt.ArrayLike) -> tuple[Float64, Float64]:
        """Rigorous lower and upper bounds of |got - exact|.

        A nan or inf is infinitely far from a finite exact value, and 0 away from an equal infinity.  Where the
        radius is infinite the bounds are 0 and inf whatever `got` is: undecided.
        """
        x = np.asarray(got, dtype=np.float64)
        lower, upper = self._scaled_error(got)
        back = -np.asarray(self.shift)
        low, high = np.ldexp(lower, back), np.ldexp(upper, back)
        moved = (back != 0) & (upper > 0)
        low, high = np.where(moved, np.maximum(0.0, -_up(-low)), low), np.where(moved, _up(high), high)
        # Where scaling would overflow, the exact value is below _TINY and counts for nothing but a rounding.
        far = (back != 0) & np.isfinite(x) & (np.abs(x) > _FAR)
        return np.where(far, np.abs(np.nextafter(x, 0.0)), low), np.where(far, _up(np.abs(x)), high)

    def compare(self, got: npt.ArrayLike, allowance: Float64) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.bool_]]:
        """Where |got - exact| is surely within, and where it is surely beyond, the allowance; elsewhere undecided."""
        low, high = self.error(got)
        lower, upper = self._scaled_error(got)
        with np.errstate(over="ignore"):
            allowed = np.ldexp(allowance, np.asarray(self.shift))
        scaled = np.isfinite(allowed) & np.isfinite(upper)  # else what scaling overflows is compared as it is
        return np.where(scaled, upper <= allowed, high <= allowance), np.where(scaled, lower > allowed, low > allowance)

    def _scaled_error(self, got: npt.ArrayLike) -> tuple[Float64, Float64]:
        x, shift = np.asarray(got, dtype=np.float64), np.asarray(self.shift)
        with np.errstate(over="ignore"):
            x = np.ldexp(x, shift)
        with np.errstate(all="ignore"):
            # TwoSum (Knuth): got - hi = s + e exactly, unless it overflows.  Then c = fl(e - lo), t = fl(s + c) give
            # |got - hi - lo - t| <= u (|c| + |t|), with no underflow term since sums of float64 are exact below
            # the normal range.  fl(|c| + |t|) >= (1 - u)(|c| + |t|), so 4 u fl(|c| + |t|) is ample; each further
            # operation is rounded to nearest and then moved one float64 outward.  Only if c = t = 0 is all exact.
            s = x - self.hi
            b = s - x
            e = (x - (s - b)) + (-self.hi - b)
            c = e - self.lo
            t = np.abs(s + c)
            size = t + np.abs(c)
            slack = _up(self.radius + _up(4 * _BINARY64.u * size))
            lower = np.maximum(0.0, -_up(slack - t))
            upper = np.where(size == 0, self.radius, _up(t + slack))
            # Overflow: |got - hi| > max although both are finite, and |lo| < max / 4.
            lower = np.where(np.isinf(s), np.maximum(0.0, -_up(self.radius - _BINARY64.max / 2)), lower)
            lower, upper = np.where(np.isnan(lower), 0.0, lower), np.where(np.isnan(upper), np.inf, upper)
            apart = np.where(x == self.hi, 0.0, np.inf)
            special = ~(np.isfinite(x) & np.isfinite(self.hi))
            unknown = np.isinf(self.radius)
            lower = np.where(unknown, 0.0, np.where(special, apart, lower))
            upper = np.where(unknown, np.inf, np.where(special, apart, upper))
        return lower, upper


def _up(x: Float64) -> Float64:
    with np.errstate(over="ignore"):
        return np.nextafter(x, np.inf)


# Numbers below 2**-900 are held multiplied by 2**600: far from the subnormals, and still far from overflow.
_TINY, _SHIFT, _FAR = 2.0**-900, 600, 2.0**400


def _split(v: arb) -> tuple[float, float, float, int]:
    """hi, lo, the radius of what lo is rounded from (0 only if that is exactly 0), and the shift of one ball."""
    if v.is_finite() and not v.is_zero() and abs(float(v.abs_upper())) < _TINY:
        return *_parts(v * arb(2) ** _SHIFT), _SHIFT
    return *_parts(v), 0


def _parts(v: arb) -> tuple[float, float, float]:
    hi = float(v)
    if not math.isfinite(hi):
        if math.isinf(hi) and not v.is_finite() and v.is_exact():
            return hi, 0.0, 0.0
        return 0.0, 0.0, math.inf  # undefined, or beyond the range of float64
    rest = v - hi
    if rest.is_zero():
        return hi, 0.0, 0.0
    return hi, float(rest), float(rest.rad()) or _BINARY64.eta


def enclose(balls: Iterable[arb], shape: tuple[int, ...]) -> Enclosure:
    """The enclosures of many balls, as arrays of one shape."""
    hi, lo, radius, shift = np.array([_split(v) for v in balls], dtype=np.float64).reshape(-1, 4).T
    # To be covered: the radius of the rest, and the rounding of its midpoint to lo, at most u |lo| + eta / 2.  The
    # float64 arithmetic here loses at most 3 u of that and 5 eta / 2; 8 u and 4 eta more make up for it.
    u, eta = _BINARY64.u, _BINARY64.eta
    radius = np.where((lo == 0) & (radius == 0), 0.0, (radius + u * np.abs(lo)) * (1 + 8 * u) + 4 * eta)
    found = Enclosure(*(np.array(x).reshape(shape) for x in (hi, lo, radius)), shift.astype(np.int64).reshape(shape))
    for column in (found.hi, found.lo, found.radius, found.shift):
        np.asarray(column).setflags(write=False)  # results are cached and shared
    return found
