"""Options of the inference engine, shared by node, replay, evaluation and command line."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

FALLBACKS = ("auto", "none")


@dataclass(frozen=True)
class EngineOptions:
    """What the user asks of the inference engine."""

    engine: str = "auto"
    """A name from `rgsiam_ros.engines.ENGINES`. ``auto``: the best that is installed and passes its
    self-test."""
    precision: str = "auto"
    """A number format that the bundle offers. ``auto``: the fastest that this machine can run."""
    threads: int = 0
    """Number of CPU threads for one inference. 0: the engine chooses."""
    batch: int = 1
    """Number of images in one inference of the absolute branch."""
    cache: Path | None = None
    """Folder of built engines. None: the user's own, see `rgsiam_ros.engines.cache`."""
    fallback: str = "auto"
    """``auto``: take another engine if the requested one cannot serve. ``none``: raise EngineError."""
