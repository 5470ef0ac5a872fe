"""Select the engine that serves a bundle: the best that is installed and passes the self-test.

An engine *serves* a bundle if it runs the bundle's networks, and its outputs for the golden images are within
the tolerance of the manifest.
"""

from __future__ import annotations

import platform
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from rgsiam_ros.bundle import Bundle
from rgsiam_ros.bundle.parts import Differences
from rgsiam_ros.bundle.precision import PRECISIONS, Precision
from rgsiam_ros.engines import ENGINES, Engine, EngineInfo, EngineRequest, create_engine
from rgsiam_ros.engines.availability import why_not
from rgsiam_ros.engines.options import FALLBACKS, EngineOptions
from rgsiam_ros.engines.self_test import describe_exceeded
from rgsiam_ros.engines.served import ServedNetwork
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
"""Best first, as ``benchmarks/engines.py`` measured on CPUs; GPU engines come before CPU engines. ONNX
Runtime's TensorRT provider is not in the list, because it chooses number formats by itself: it serves only
where the user names it."""
INT8_FEATURES = ("avx512_vnni", "avx_vnni", "amx_int8", "asimddp", "i8mm")
"""CPU instruction sets for int8. Without any of them int8 is slow, or its sums saturate."""


@dataclass(frozen=True)
class RefusedEngine:
    """An engine that was tried and cannot serve."""

    engine: str
    precision: Precision
    reason: str
    installed: bool = True
    """False if its library, provider or GPU is missing. That needs no warning."""

    def __str__(self) -> str:
        """One line for a log."""
        return f"{self.engine} {self.precision}: {self.reason}"


@dataclass(frozen=True)
class SelectedEngine:
    """The engine that serves a bundle, and how it was selected."""

    engine: Engine
    """Runs the network, see `rgsiam_ros.engines.served.ServedNetwork`."""
    file: str
    """The bundle's file with that network."""
    precision: Precision
    differences: Differences
    """From what the bundle states for the golden images."""
    refused: list[RefusedEngine] = field(default_factory=list)
    fell_back: bool = False
    """True if the requested engine cannot serve."""

    def describe(self) -> EngineInfo:
        """The engine, its version and device."""
        return self.engine.describe()

    def close(self) -> None:
        """Release the engine."""
        self.engine.close()


def candidates(
    offered: Sequence[Precision], engine: str, precision: str, features: Sequence[str] | None = None
) -> list[Candidate]:
    """Engines and precisions to try, best first.

    offered: the bundle's precisions; engine, precision: a name or ``auto``; features: names of the CPU's
    instruction sets; None: read them from the machine. A precision that is asked for by name is tried on any
    CPU. Raises EngineError for an unknown name and for a precision that the bundle does not offer.
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
    fitting = []
    for candidate in ORDER:
        fits = engine in ("auto", candidate[0]) and candidate[1] in offered
        fits = fits and precision in ("auto", candidate[1])
        slow = candidate[1] == "int8" and not fast_int8 and precision == "auto"
        if fits and not slow:
            fitting.append(candidate)
    if not fitting and engine in ENGINES:
        return [(engine, p) for p in offered if precision in ("auto", p)]
    return fitting


def select_engine(bundle: Bundle, options: EngineOptions, network: ServedNetwork) -> SelectedEngine:
    """Start the best engine that passes the self-test on the bundle's golden images.

    network: what it must run. Raises EngineError, with every reason, if no engine can serve.
    """
    if options.fallback not in FALLBACKS:
        raise EngineError(
            f"engine_fallback is {options.fallback!r}: choose one of {', '.join(FALLBACKS)}"
        )
    refused: list[RefusedEngine] = []
    for round_number, wished in enumerate(_rounds(network.offered, options, refused)):
        for candidate in wished:
            tried = _try(bundle, candidate, options, network)
            if isinstance(tried, RefusedEngine):
                refused.append(tried)
                continue
            running, differences = tried
            return SelectedEngine(
                running,
                network.file(candidate[1]),
                candidate[1],
                differences,
                refused,
                fell_back=round_number > 0,
            )
    reasons = "; ".join(str(engine) for engine in refused)
    raise EngineError(f"no engine serves {bundle.path}: {reasons}")


def _rounds(
    offered: Sequence[Precision], options: EngineOptions, refused: list[RefusedEngine]
) -> list[list[Candidate]]:
    """The candidates to try first, then those to fall back on.

    If the requested engine cannot be tried at all, it is added to `refused`.
    """
    if options.fallback == "none":
        return [candidates(offered, options.engine, options.precision)]
    every = candidates(offered, "auto", "auto")
    try:
        wished = candidates(offered, options.engine, options.precision)
    except EngineError as error:
        if options.engine not in ("auto", *ENGINES) or options.precision not in PRECISIONS:
            raise
        refused.append(RefusedEngine(options.engine, options.precision, str(error)))
        wished = []
    return [wished, [candidate for candidate in every if candidate not in wished]]


def cpu_features() -> frozenset[str]:
    """Names of the CPU's instruction sets as Linux lists them; empty on other systems."""
    return frozenset(cpu_entry("flags", "Features").split())


def cpu_entry(*names: str) -> str:
    """The value of the first entry of /proc/cpuinfo with one of these names; empty on other systems."""
    if platform.system() != "Linux":
        return ""
    for line in Path("/proc/cpuinfo").read_text(errors="replace").splitlines():
        name, _, value = line.partition(":")
        if name.strip() in names:
            return value.strip()
    return ""


def _try(
    bundle: Bundle, candidate: Candidate, options: EngineOptions, network: ServedNetwork
) -> tuple[Engine, Differences] | RefusedEngine:
    """The engine of one candidate and its differences on the golden images, or why it cannot serve."""
    name, precision = candidate
    content = bundle.content(network.file(precision))
    request = EngineRequest(
        content, precision, threads=options.threads, batch=options.batch, cache=options.cache
    )
    try:
        running = create_engine(name, request)
    except EngineError as error:
        return RefusedEngine(name, precision, str(error), installed=why_not(name) is None)
    try:
        differences = network.measure(running)
        problems = describe_exceeded(differences, network.tolerance[precision])
        reason = "; ".join(problems)
    except EngineError as error:
        reason = str(error)
    if not reason:
        return running, differences
    running.close()
    return RefusedEngine(name, precision, f"failed the self-test: {reason}")
