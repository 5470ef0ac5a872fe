"""Which engine serves a bundle: the best that is installed and proves itself on the golden images."""

from __future__ import annotations

import platform
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from rgsiam_ros.bundle import Bundle
from rgsiam_ros.bundle.manifest import RELATIVE_NAME, Differences
from rgsiam_ros.bundle.precision import PRECISIONS, Precision
from rgsiam_ros.engines import ENGINES, Engine, EngineInfo, EngineRequest, create_engine, self_test
from rgsiam_ros.engines.availability import why_not
from rgsiam_ros.errors import EngineError

Candidate = tuple[str, Precision]

ORDER: tuple[Candidate, ...] = (
    ("tensorrt", "float16"),
    ("tensorrt", "int8_symmetric"),
    ("tensorrt", "float32"),
    ("tensorrt_rtx", "float16"),
    ("tensorrt_rtx", "float32"),
    ("onnxruntime_cuda", "float16"),
    ("onnxruntime_cuda", "float32"),
    ("openvino", "int8"),
    ("onnxruntime", "int8"),
    ("openvino", "bfloat16"),
    ("onnxruntime", "float32"),
    ("openvino", "float32"),
)
"""Best first, as measured by ``benchmarks/engines.py`` on CPUs; GPUs come before them. ONNX Runtime's
TensorRT provider chooses number formats by itself, so it serves only where it is asked for."""
INT8_FEATURES = ("avx512_vnni", "avx_vnni", "amx_int8", "asimddp", "i8mm")
"""Instructions without which int8 is slow, or saturates."""
RELATIVE_ON_CPU = "onnxruntime"
"""The relative unit's hundreds of small nodes run about as fast there as in OpenVINO."""
UNTESTED: Candidate = ("onnxruntime", "float32")
"""What ``auto`` takes for a bundle without golden images, made before there were any: nothing else is
taken on trust, unless it is asked for by name."""
FALLBACKS = ("auto", "none")


@dataclass(frozen=True)
class RefusedEngine:
    """An engine that was tried and does not serve."""

    engine: str
    precision: Precision
    reason: str
    installed: bool = True
    """False where its library, provider or GPU is missing: nothing to warn of."""

    def __str__(self) -> str:
        """One line for a log."""
        return f"{self.engine} {self.precision}: {self.reason}"


@dataclass(frozen=True)
class SelectedEngines:
    """The engines that serve, and how they were chosen."""

    absolute: Engine
    relative: Engine | None
    precision: Precision
    differences: Differences | None
    """To torch in float32 on the golden images; None where the bundle has none."""
    refusals: list[RefusedEngine] = field(default_factory=list)
    fell_back: bool = False
    """True where what was asked for does not serve."""

    def describe(self) -> EngineInfo:
        """The engine of the absolute branch."""
        return self.absolute.describe()

    def close(self) -> None:
        """Release the engines."""
        try:
            self.absolute.close()
        finally:
            if self.relative is not None:
                self.relative.close()


def candidates(
    offered: Sequence[Precision], engine: str, precision: str, features: Sequence[str] | None = None
) -> list[Candidate]:
    """What to try, best first.

    offered: the bundle's precisions; engine, precision: a name or ``auto``; features: of the CPU, read
    from the machine where None. What was asked for by name is tried whatever the CPU.
    """
    if engine != "auto" and engine not in ENGINES:
        raise EngineError(
            f"engine {engine!r} is unknown: choose auto or one of {', '.join(ENGINES)}"
        )
    if precision != "auto" and precision not in PRECISIONS:
        raise EngineError(
            f"precision {precision!r} is unknown: choose auto or one of {', '.join(PRECISIONS)}"
        )
    if precision not in ("auto", *offered):
        raise EngineError(
            f"the bundle has no {precision} network, only {', '.join(offered)}: export with "
            f"--precision {precision}"
        )
    if "auto" not in (engine, precision):
        return [(engine, precision)]  # type: ignore[list-item]
    known = cpu_features() if features is None else features
    fast_int8 = any(name in known for name in INT8_FEATURES)
    found = []
    for candidate in ORDER:
        fits = engine in ("auto", candidate[0]) and candidate[1] in offered
        fits = fits and precision in ("auto", candidate[1])
        slow = candidate[1] == "int8" and not fast_int8 and precision == "auto"
        if fits and not slow:
            found.append(candidate)
    if not found and engine in ENGINES:
        return [(engine, p) for p in offered if precision in ("auto", p)]
    return found


def select_engines(
    bundle: Bundle,
    *,
    engine: str = "auto",
    precision: str = "auto",
    refine: bool,
    threads: int = 0,
    batch: int = 1,
    cache: Path | None = None,
    fallback: str = "auto",
) -> SelectedEngines:
    """Start the best engine that passes the self-test.

    engine, precision: a name or ``auto``; refine: start the relative unit too; fallback: ``auto``
    takes another engine where the one asked for does not serve, ``none`` refuses. Raises EngineError
    with every reason where none serves.
    """
    offered = bundle.manifest.precisions
    if bundle.golden is None and batch > 1:
        raise EngineError(f"{bundle.path} takes single images only: export it anew, or use batch 1")
    refusals: list[RefusedEngine] = []
    every = [UNTESTED] if bundle.golden is None else candidates(offered, "auto", "auto")
    if (engine, precision) == ("auto", "auto"):
        wishes = [every]
    elif fallback == "auto":
        try:
            wishes = [candidates(offered, engine, precision)]
        except EngineError as error:
            if engine not in ("auto", *ENGINES) or precision not in PRECISIONS:
                raise
            refusals.append(RefusedEngine(engine, precision, str(error)))
            wishes = [[]]
        wishes.append([c for c in every if c not in wishes[0]])
    else:
        wishes = [candidates(offered, engine, precision)]
    for round_number, wish in enumerate(wishes):
        for candidate in wish:
            started = _try(
                bundle, candidate, refine=refine, batch=batch, threads=threads, cache=cache
            )
            if isinstance(started, RefusedEngine):
                refusals.append(started)
                continue
            absolute, relative, differences = started
            fell_back = round_number > 0
            return SelectedEngines(
                absolute, relative, candidate[1], differences, refusals, fell_back
            )
    listed = "; ".join(str(refusal) for refusal in refusals)
    raise EngineError(f"no engine serves {bundle.path}: {listed}")


def cpu_features() -> frozenset[str]:
    """Names of the CPU's instructions as Linux lists them; empty elsewhere."""
    return frozenset(cpu_entry("flags", "Features").split())


def cpu_entry(*names: str) -> str:
    """The first line of Linux's CPU description under one of these names; empty elsewhere."""
    if platform.system() != "Linux":
        return ""
    for line in Path("/proc/cpuinfo").read_text(errors="replace").splitlines():
        name, _, value = line.partition(":")
        if name.strip() in names:
            return value.strip()
    return ""


def relative_engine_for(engine: str) -> str:
    """The engine that runs the relative unit beside this one."""
    return RELATIVE_ON_CPU if engine == "openvino" else engine


def _try(
    bundle: Bundle,
    candidate: Candidate,
    *,
    refine: bool,
    batch: int,
    threads: int,
    cache: Path | None,
) -> tuple[Engine, Engine | None, Differences | None] | RefusedEngine:
    name, precision = candidate
    opened: list[Engine] = []
    try:
        network = bundle.absolute_onnx(precision)
        opened.append(create_engine(name, EngineRequest(network, precision, threads, batch, cache)))
        if refine:
            unit = EngineRequest(bundle.content(RELATIVE_NAME), "float32", threads, 1, cache)
            opened.append(create_engine(relative_engine_for(name), unit))
        absolute, relative = opened[0], opened[1] if refine else None
        found = self_test.measure_golden_images(absolute, relative, bundle, precision, batch)
        tolerance = bundle.manifest.tolerance_of(precision)
        problems = []
        if found is not None and tolerance is not None:
            problems = self_test.exceeded(found, tolerance)
        if not problems:
            served = absolute, relative, found
            opened = []
            return served
        reason, installed = "; ".join(problems), True
    except EngineError as error:
        reason, installed = str(error), bool(opened) or why_not(name) is None
    finally:
        for engine in opened:
            engine.close()
    if opened:
        reason = f"failed the self-test: {reason}"
    return RefusedEngine(name, precision, reason, installed)
