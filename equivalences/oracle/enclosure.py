"""Exact values as float64 arrays with rigorous radii: what the oracle hands to the judge."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from flint import arb

from equivalences.formats import FORMATS

Float64 = npt.NDArray[np.float64]

_BINARY64 = FORMATS["float64"]
_SLACK, _ETA = 4 * _BINARY64.u, _BINARY64.eta


@dataclass(frozen=True, eq=False)
class Enclosure:
    """Exact values in float64: each lies in (hi + lo +- radius) / 2**shift; an infinite radius: nothing is known.

    `hi` is the float64 nearest to the midpoint, `lo` the float64 nearest to the rest, `radius` an upper bound.
    An exact infinity has hi = +-inf and radius 0.  Numbers near the subnormals of float64 are scaled up by 2**shift,
    so that an error is known to a fraction of the spacing there too (`shift` 0: none is).
    """

    hi: Float64
    lo: Float64
    radius: Float64
    shift: npt.NDArray[np.int64] | int = 0

    @property
    def nearest(self) -> Float64:
        """The exact values, rounded to float64."""
        if isinstance(self.shift, int):
            return self.hi
        return np.asarray(np.ldexp(self.hi, -self.shift), dtype=np.float64)

    def take(self, order: npt.NDArray[np.int64]) -> Enclosure:
        """The rows `order` of these numbers."""
        shift = self.shift if isinstance(self.shift, int) else self.shift[order]
        return Enclosure(self.hi[order], self.lo[order], self.radius[order], shift)

    def patched(self, where: npt.NDArray[np.int64], by: Enclosure) -> Enclosure:
        """These numbers, with those at `where` replaced."""
        shape = self.hi.shape
        mine = [np.array(np.broadcast_to(part, shape)) for part in (self.hi, self.lo, self.radius, self.shift)]
        for part, other in zip(mine, (by.hi, by.lo, by.radius, by.shift), strict=True):
            part[where] = other
        return Enclosure(*mine)

    def error(self, got: npt.ArrayLike) -> tuple[Float64, Float64]:
        """Rigorous lower and upper bounds of |got - exact|.

        A nan or inf is infinitely far from a finite exact value, and 0 away from an equal infinity.  Where the
        radius is infinite the bounds are 0 and inf whatever `got` is: undecided.
        """
        with np.errstate(all="ignore"):
            return self._error(np.asarray(got, dtype=np.float64))

    def _error(self, x: Float64) -> tuple[Float64, Float64]:
        if isinstance(self.shift, int):
            return self._distance(x)
        lower, upper = self._distance(self._scaled(x))
        back = np.negative(self.shift)
        lower, upper = np.maximum(0.0, np.ldexp(lower, back) * (1 - _SLACK) - _ETA * (back != 0)), np.ldexp(upper, back)
        upper = np.where((back != 0) & (upper > 0), upper * (1 + _SLACK) + _ETA, upper)
        # Beyond the reach of scaling, the exact value counts for less than a rounding.
        far = (back != 0) & (np.abs(x) > _FAR)
        return np.where(far, np.abs(x) * (1 - _SLACK), lower), np.where(far, np.abs(x) * (1 + _SLACK), upper)

    def decide(
        self, got: npt.ArrayLike, allowance: Float64
    ) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.bool_], Float64]:
        """Where |got - exact| is surely within, and where it is surely beyond, the allowance (elsewhere undecided).

        The third result is the upper bound of the error.
        """
        with np.errstate(all="ignore"):
            lower, upper = self._error(np.asarray(got, dtype=np.float64))
            within, beyond = upper <= allowance, lower > allowance
            if not isinstance(self.shift, int):  # decided at full resolution, a fraction of the spacing of subnormals
                low, high = self._distance(self._scaled(np.asarray(got, dtype=np.float64)))
                allowed = np.ldexp(allowance, self.shift)
                near = np.isfinite(high) & np.isfinite(allowed)
                within, beyond = np.where(near, high <= allowed, within), np.where(near, low > allowed, beyond)
        return within, beyond, upper

    def _scaled(self, x: Float64) -> Float64:
        return np.asarray(np.ldexp(x, self.shift))

    def _distance(self, x: Float64) -> tuple[Float64, Float64]:
        """Bounds of |x - (hi + lo +- radius)|."""
        # s = fl(x - hi) is off by u |s|, and t = fl(s - lo) by u |t| <= u (1 + u)(|s| + |lo|).  Differences of
        # float64 are exact below the normal range, so there is no underflow term.  4 u (|s| + |lo|) is ample, and
        # the factors 1 +- 4 u and eta make up for the rounding of the sums, products and differences here.
        s = x - self.hi
        t = np.abs(s - self.lo)
        size = np.abs(s) + np.abs(self.lo)
        slack = self.radius + _SLACK * size
        lower = np.maximum(0.0, t * (1 - _SLACK) - slack * (1 + _SLACK) - _ETA)
        upper = (t + slack) * (1 + _SLACK) + _ETA
        same = size == 0
        lower, upper = np.where(same, 0.0, lower), np.where(same, self.radius, upper)
        if np.logical_and.reduce(np.isfinite(size) & np.isfinite(self.radius), axis=None):  # and so are x and hi
            return lower, upper
        finite = np.isfinite(x) & np.isfinite(self.hi) & np.isfinite(self.radius)
        # Overflow: |x - hi| + |lo| > max although all three are finite, and |lo| < max / 4.
        high = np.isinf(size)
        lower = np.where(high, np.maximum(0.0, _BINARY64.max / 2 - self.radius), lower)
        lower, upper = np.where(np.isnan(lower), 0.0, lower), np.where(np.isnan(upper) | high, np.inf, upper)
        apart = np.where(x == self.hi, 0.0, np.inf)
        unknown = np.isinf(self.radius)
        lower = np.where(unknown, 0.0, np.where(finite, lower, apart))
        upper = np.where(unknown, np.inf, np.where(finite, upper, apart))
        return lower, upper


# Numbers below 2**-900 are held multiplied by 2**600: far from the subnormals, and still far from overflow.
_TINY, _SHIFT, _FAR = 2.0**-900, 600, 2.0**400


def _split(v: arb) -> tuple[float, float, float, int]:
    """hi, lo, the radius of what lo is rounded from (0 only if that is exactly 0), and the shift of one ball."""
    hi = float(v)
    if abs(hi) < 2 * _TINY and v.is_finite() and not v.is_zero() and float(v.abs_upper()) < _TINY:
        v = v * arb(2) ** _SHIFT
        return *_parts(v, float(v)), _SHIFT
    return *_parts(v, hi), 0


def _parts(v: arb, hi: float) -> tuple[float, float, float]:
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
    hi, lo, radius = (np.array(x).reshape(shape) for x in (hi, lo, radius))
    for column in (hi, lo, radius):
        column.setflags(write=False)  # results are cached and shared
    if not shift.any():
        return Enclosure(hi, lo, radius)
    moved = shift.astype(np.int64).reshape(shape)
    moved.setflags(write=False)
    return Enclosure(hi, lo, radius, moved)
