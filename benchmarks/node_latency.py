"""Measure the latency from image to pose: of the node, its bare parts, and naive nodes.

    .venv/bin/python benchmarks/node_latency.py --out results/latency              # every case
    .venv/bin/python benchmarks/node_latency.py --age --start --out results/latency_age
    .venv/bin/python benchmarks/node_latency.py --sizes 1280x720 --rates 30 --seconds 5

The systems are the real `node` and those of latency_systems.py: `naive_engine` and `naive_torch`, `echo`
(DDS alone) and `bare` (the parts without ROS). All systems are started once for each transport. In each round
they take turns: images are sent to one system at a time. One process sends the images and receives the poses,
with one clock, and matches them by stamp. The latency includes the time that publishing an image takes. A
640x480 image contains the bundle's 16:9 view as 640x360, and the node crops it.

Writes latency.json, latency.md and latency.png; with --age, age.json and age.png; with --start, start.json.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import time
from datetime import date
from pathlib import Path

os.environ.setdefault("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST")
ROOT = Path(__file__).resolve().parents[1]
os.environ.setdefault(
    "FASTRTPS_DEFAULT_PROFILES_FILE", str(ROOT / "config" / "fastdds_large_images.xml")
)

import numpy as np  # noqa: E402
from latency_camera import Camera, node_process, system_process  # noqa: E402
from latency_report import draw, draw_age, table  # noqa: E402

from rgsiam_ros.bundle import Bundle  # noqa: E402
from rgsiam_ros.engines.benchmark import cpu_name  # noqa: E402
from rgsiam_ros.engines.selection import INT8_FEATURES, cpu_features  # noqa: E402

SYSTEMS = ("echo", "node", "naive_engine", "naive_torch")
WARM_UP = 5
"""The first images of each stretch, which do not count."""
AGE_STEP_S = 0.05
"""Sampling period of the age of the newest pose."""


def start_all(names, transport, options):
    """Start the systems with these names. Returns their processes by name."""
    processes = {}
    for name in names:
        if name == "node":
            processes[name] = node_process(options.bundle, transport)
        else:
            processes[name] = system_process(
                name, transport, options.bundle, options.drive, options.seed
            )
    return processes


def summary(stretches, process):
    """The figures of one system in one case, over all rounds."""
    latency_ms, poses, processed, sent, cpu_s, seconds = [], 0, 0, 0, 0.0, 0.0
    for s in stretches:
        latency_ms += [
            1e3 * (s.received_s[stamp] - sent_s)
            for stamp, sent_s in list(s.sent_s.items())[WARM_UP:]
            if stamp in s.received_s
        ]
        with_pose = s.received_s.keys() & s.sent_s.keys()
        poses += len(with_pose)
        processed += len((s.worked_on | with_pose) & s.sent_s.keys())
        sent, cpu_s, seconds = sent + len(s.sent_s), cpu_s + s.cpu_s, seconds + s.seconds
    p50, p95, p99 = np.percentile(latency_ms, [50, 95, 99]) if latency_ms else [float("nan")] * 3
    return {
        "p50_ms": p50,
        "p95_ms": p95,
        "p99_ms": p99,
        "sent": sent,
        "used": processed,
        "poses": poses,
        "skipped": sent - processed,
        "cpu_ms_per_frame": 1e3 * cpu_s / max(1, processed),
        "cores": cpu_s / seconds,
        "memory_mib": process.memory_mib(),
    }


def bare_summary(rows):
    """The medians of the parts, and percentiles of their sum, in milliseconds."""
    total_ms = [row["decode"] + row["estimate"] for row in rows]
    p50, p95, p99 = np.percentile(total_ms, [50, 95, 99])
    parts = {name: float(np.median([row[name] for row in rows])) for name in rows[0]}
    return {"p50_ms": p50, "p95_ms": p95, "p99_ms": p99, "sent": len(rows), "parts_ms": parts}


def measure(transport, options):
    """Measure all cases of one transport. Yields a row for each system and case."""
    trained = Bundle.load(options.bundle).manifest.camera
    names = [name for name in SYSTEMS if name in options.systems]
    camera = Camera(trained, options.drive, transport, options.seed, names)
    processes = start_all(names, transport, options)
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    bare = system_process("bare", transport, options.bundle, options.drive, options.seed, **pipes)
    try:
        for i, size in enumerate(options.sizes):
            camera.prepare(size)
            for process in processes.values() if i == 0 else ():
                camera.wait_for(process)
            if i == 0:
                camera.prepare(size)  # all systems run now and receive the camera_info
            for rate in options.rates:
                case = {"transport": transport, "size": size, "rate": rate}
                stretches, rows = {name: [] for name in names}, []
                for _ in range(options.rounds):
                    request = case | {"seconds": options.seconds}
                    bare.popen.stdin.write(json.dumps(request) + "\n")
                    bare.popen.stdin.flush()
                    line = bare.popen.stdout.readline()
                    bare.check()
                    rows += json.loads(line)
                    for name in names:
                        stretches[name].append(
                            camera.stretch(processes[name], rate, options.seconds)
                        )
                yield case | {"system": "bare", **bare_summary(rows)}
                for name in names:
                    yield case | {"system": name, **summary(stretches[name], processes[name])}
    finally:
        for process in (*processes.values(), bare):
            process.stop()
        camera.close()


def ages(sent, rate):
    """The age of the newest pose over time: seconds and milliseconds, sampled each `AGE_STEP_S`.

    The age grows over time if a system cannot keep up with the images.
    """
    began = min(sent.sent_s.values())
    pairs = sorted(
        (sent.received_s[s], sent_s) for s, sent_s in sent.sent_s.items() if s in sent.received_s
    )
    received, image_sent = np.array(pairs).T
    newest = np.maximum.accumulate(image_sent)
    times = np.arange(received[0], max(sent.sent_s.values()) + 1.0 / rate, AGE_STEP_S)
    index = np.searchsorted(received, times, side="right") - 1
    return times - began, 1e3 * (times - newest[index])


def measure_age(options):
    """Measure the age of the newest pose at 60 Hz, with the last size and the first transport.

    Each system runs alone for `--age-seconds`.
    """
    trained = Bundle.load(options.bundle).manifest.camera
    transport, names = options.transports[0], [n for n in SYSTEMS if n in options.systems]
    ages_of = {}
    for name in names:
        camera = Camera(trained, options.drive, transport, options.seed, [name])
        process = start_all([name], transport, options)[name]
        try:
            camera.prepare(options.sizes[-1])
            camera.wait_for(process)
            camera.prepare(options.sizes[-1])
            s = camera.stretch(process, 60.0, options.age_seconds)
            seconds, age = ages(s, 60.0)
            half = len(age) // 2
            slope = np.polyfit(seconds[len(age) // 10 :], age[len(age) // 10 :], 1)[0]
            figures = {
                "slope_ms_per_minute": 60.0 * slope,
                "first_half_p50_ms": np.median(age[:half]),
                "second_half_p50_ms": np.median(age[half:]),
                "second_half_p99_ms": np.percentile(age[half:], 99),
            }
            ages_of[name] = figures | summary([s], process) | {"t": seconds, "age_ms": age}
            print(name, {k: round(float(v), 1) for k, v in figures.items()}, flush=True)
        finally:
            process.stop()
            camera.close()
    return ages_of


def measure_start(options):
    """Measure the seconds from the launch of each system to its first pose, with images at 30 Hz."""
    trained = Bundle.load(options.bundle).manifest.camera
    transport, starts_s = options.transports[0], {}
    for name in [n for n in SYSTEMS if n in options.systems]:
        starts_s[name] = []
        for _ in range(options.starts):
            camera = Camera(trained, options.drive, transport, options.seed, [name])
            camera.prepare(options.sizes[-1])
            process = start_all([name], transport, options)[name]
            try:
                starts_s[name].append(camera.wait_for(process))
            finally:
                process.stop()
                camera.close()
        print(f"{name}: first pose after {np.round(starts_s[name], 2).tolist()} s", flush=True)
    return starts_s


def save(path, value):
    """Write `value`, which may contain numpy numbers and arrays, as JSON."""
    path.write_text(json.dumps(value, indent=1, default=lambda v: np.asarray(v).tolist()) + "\n")


def main():
    """Measure, print the tables, and write the results."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--bundle", type=Path, default=ROOT / "models" / "town")
    parser.add_argument("--drive", type=Path, default=ROOT / "test" / "data" / "town_drive")
    parser.add_argument("--systems", nargs="+", default=SYSTEMS, choices=SYSTEMS)
    parser.add_argument("--sizes", nargs="+", default=["640x480", "1280x720"])
    parser.add_argument("--transports", nargs="+", default=["raw", "compressed"])
    parser.add_argument("--rates", nargs="+", type=float, default=[10.0, 30.0, 60.0])
    parser.add_argument("--seconds", type=float, default=10.0, help="per system and round")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--domain", type=int, default=71)
    parser.add_argument(
        "--age", action="store_true", help="measure the age of the newest pose instead"
    )
    parser.add_argument("--age-seconds", type=float, default=120.0)
    parser.add_argument(
        "--start", action="store_true", help="measure the time to the first pose instead"
    )
    parser.add_argument("--starts", type=int, default=5)
    parser.add_argument("--out", type=Path, default=Path("results/latency"))
    options = parser.parse_args()
    os.environ["ROS_DOMAIN_ID"] = str(options.domain)
    options.out.mkdir(parents=True, exist_ok=True)
    load = ", ".join(f"{v:.1f}" for v in os.getloadavg())
    int8 = ", ".join(sorted(cpu_features() & set(INT8_FEATURES))) or "none"
    machine = f"{cpu_name()}, {os.cpu_count()} cores, int8 instructions: {int8}, load before {load}"
    machine += f", {date.today()}"
    print(machine, flush=True)
    if options.age:
        ages_of = measure_age(options)
        save(options.out / "age.json", {"machine": machine, "systems": ages_of})
        draw_age(ages_of, options.out / "age.png")
    if options.start:
        save(options.out / "start.json", {"machine": machine, "seconds": measure_start(options)})
    if options.age or options.start:
        return
    rows, began = [], time.monotonic()
    for transport in options.transports:
        for row in measure(transport, options):
            rows.append(row)
            save(options.out / "latency.json", {"machine": machine, "rows": rows})
            p50 = f"{row['p50_ms']:.1f} p95 {row['p95_ms']:.1f} ms"
            case = f"{row['transport']} {row['size']} {row['rate']:g} Hz {row['system']}"
            print(f"{time.monotonic() - began:5.0f} s {case}: p50 {p50}", flush=True)
    text = table(rows, machine)
    (options.out / "latency.md").write_text(text)
    draw(rows, options.out / "latency.png", machine)
    print(text)


if __name__ == "__main__":
    main()
