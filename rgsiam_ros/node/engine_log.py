"""What the log says of the engine that serves, and of those that do not."""

from __future__ import annotations

from typing import Any

from rgsiam_ros.engine_choice import Serving


def log_serving(log: Any, serving: Serving) -> None:
    """WARN for a fallback and for an engine that computes wrongly; INFO for the rest."""
    failed = [str(refusal) for refusal in serving.refusals if refusal.installed]
    info = serving.describe()
    if serving.fell_back:
        reasons = "; ".join(str(refusal) for refusal in serving.refusals)
        log.warn(f"falling back to engine {info.name} {info.precision}: {reasons}")
    elif failed:
        log.warn(f"not used: {'; '.join(failed)}")
    if serving.differences is None:
        log.warn(
            "the bundle has no golden images, so its engine was not tested: export the bundle anew"
        )
    else:
        d = serving.differences
        log.info(
            f"self-test passed: {d.position_m * 1e3:.3g} mm and {d.rotation_deg * 1e3:.3g} "
            "millidegrees from what torch gave in float32"
        )
