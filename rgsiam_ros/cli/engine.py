"""The commands `rgsiam engine list`, `build` and `verify`."""

from __future__ import annotations

import datetime
from functools import partial
from typing import Annotated

import typer
from rich.markup import escape
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from rgsiam_ros.cli.console import console
from rgsiam_ros.cli.options import BundlePath, CacheFolder, EngineName, PrecisionName, Threads
from rgsiam_ros.errors import EngineError

engine_app = typer.Typer(no_args_is_help=True, help="Inference engines: list, build, verify.")

GPU_ENGINES = ("tensorrt", "tensorrt_rtx", "onnxruntime_tensorrt")


@engine_app.command("list")
def engine_list(cache: CacheFolder = None) -> None:
    """List the engines that can run on this machine, and the engines that were built."""
    from rgsiam_ros.engines import ENGINES
    from rgsiam_ros.engines.availability import why_not
    from rgsiam_ros.engines.cache import EngineCache

    for name in ENGINES:
        reason = why_not(name)
        console.print(f"{name}: {escape(reason) if reason else 'can run here'}", soft_wrap=True)
    built = EngineCache(cache)
    entries = list(built.entries())
    console.print(f"built engines in {built.folder}: {len(entries) or 'none'}")
    for key, description in entries:
        console.print(
            f"  network {key.onnx_sha256[:12]}, {key.library} {key.library_version}, {key.precision}, "
            f"batch {key.batches[0]} to {key.batches[2]}: only for {key.gpu_name} "
            f"({key.compute_capability}); {description.get('made_by', '')}, "
            f"{description.get('created', '')}",
            soft_wrap=True,
        )


@engine_app.command("build")
def engine_build(
    bundle: BundlePath,
    engine: Annotated[str, typer.Option(help=f"One of {', '.join(GPU_ENGINES)}.")] = "tensorrt",
    precision: Annotated[
        str,
        typer.Option(
            help="float32, float16 or int8_symmetric; auto: float16 if the bundle has it."
        ),
    ] = "auto",
    batch: Annotated[
        bool,
        typer.Option("--batch", help="Build for batches of 1 to 32 images, for offline replay."),
    ] = False,
    cache: CacheFolder = None,
) -> None:
    """Build the engines of a bundle for this machine's GPU. The node itself never builds an engine."""
    from rgsiam_ros.bundle import Bundle
    from rgsiam_ros.engines.build import build_for_bundle
    from rgsiam_ros.localization.networks import all_networks

    if engine not in GPU_ENGINES:
        raise EngineError(f"engine {engine!r} needs no building: only {', '.join(GPU_ENGINES)} do")
    loaded = Bundle.load(bundle)
    networks = all_networks(loaded)
    if precision != "auto" and not any(precision in network.offered for network in networks):
        loaded.check_offered(networks[0].offered, precision)  # type: ignore[arg-type]
    columns = TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn()
    with Progress(*columns, console=console) as bars:
        tasks: dict[str, TaskID] = {}

        def show(name: str, phase: str, done: int, steps: int) -> None:
            label = f"{name}: {phase}"
            if label not in tasks:
                tasks[label] = bars.add_task(label, total=steps)
            bars.update(tasks[label], completed=done)

        paths = []
        for network in networks:
            chosen = precision
            if precision not in network.offered:
                chosen = "float16" if "float16" in network.offered else "float32"
            paths.append(
                build_for_bundle(
                    loaded,
                    network,
                    engine,
                    chosen,  # type: ignore[arg-type]
                    batch=batch,
                    cache=cache,
                    progress=lambda name: partial(show, name),
                )
            )
    for path in paths:
        console.print(f"built: {path}", soft_wrap=True)
    console.print(f"next: rgsiam engine verify {bundle} --engine {engine} --precision {precision}")


@engine_app.command("verify")
def engine_verify(
    bundle: BundlePath,
    engine: EngineName = "auto",
    precision: PrecisionName = "auto",
    threads: Threads = 0,
    cache: CacheFolder = None,
) -> None:
    """Test and time every engine on the bundle's golden images, and print a table as in docs/engines.md."""
    from rgsiam_ros.bundle import Bundle
    from rgsiam_ros.engines.benchmark import benchmark_engines
    from rgsiam_ros.engines.options import EngineOptions
    from rgsiam_ros.geometry.units import angle_text, length_text
    from rgsiam_ros.localization.networks import network_of

    options = EngineOptions(engine, precision, threads, cache=cache)
    loaded = Bundle.load(bundle)
    rows = benchmark_engines(loaded, options, network_of(loaded))
    today = datetime.date.today().isoformat()
    print("| device | date | engine | precision | network ms p50, p99 | difference |")
    print("|---|---|---|---|---|---|")
    for row in (row for row in rows if not row.problem):
        d = row.differences
        assert d is not None
        difference = f"{length_text(d.position_m)}, {angle_text(d.rotation_deg)}"
        print(
            f"| {row.device} | {today} | {row.engine} {row.version} | {row.precision} | "
            f"{row.inference_ms[0]:.2f}, {row.inference_ms[1]:.2f} | {difference} |"
        )
    for row in (row for row in rows if row.problem):
        console.print(f"{row.engine} {row.precision}: {escape(row.problem)}", soft_wrap=True)
    if all(row.problem for row in rows):
        raise EngineError(f"no engine serves {bundle}")
