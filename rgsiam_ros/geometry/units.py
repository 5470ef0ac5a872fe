"""Lengths and angles as text, in a unit that suits their size."""

from __future__ import annotations

import math

LENGTHS = ((1e3, "km"), (1.0, "m"), (1e-2, "cm"), (1e-3, "mm"), (1e-6, "µm"))
"""Metres in each unit, largest first."""
DIGITS = 3
"""Significant digits."""
SMALLEST_DEGREES = 1e-3
"""One millidegree, in degrees. Angles below a tenth of a degree are shown in it."""


def length_text(metres: float) -> str:
    """A length with its unit, for example ``2.5 m``, ``34 mm`` or ``0 m``."""
    if metres == 0.0 or not math.isfinite(metres):
        return f"{metres:g} m"
    size, name = next(
        ((size, name) for size, name in LENGTHS if _rounded(abs(metres) / size) >= 1.0), LENGTHS[-1]
    )
    return f"{_digits(metres / size)} {name}"


def angle_text(degrees: float) -> str:
    """An angle with its unit, for example ``2.5 degrees`` or ``4 millidegrees``."""
    if degrees == 0.0 or not math.isfinite(degrees):
        return f"{degrees:g} degrees"
    if _rounded(abs(degrees) / SMALLEST_DEGREES) >= 100.0:
        number, name = _digits(degrees), "degree"
    else:
        number, name = _digits(degrees / SMALLEST_DEGREES), "millidegree"
    return f"{number} {name}" if number == "1" else f"{number} {name}s"


def _rounded(value: float) -> float:
    return float(f"{value:.{DIGITS}g}")


def _digits(value: float) -> str:
    """At most `DIGITS` significant digits, without an exponent if possible."""
    text = f"{value:.{DIGITS}g}"
    return f"{float(text):g}" if "e" in text else text
