"""From image published to pose received: the node beside its bare parts and beside naive nodes, in one run.

    .venv/bin/python benchmarks/node_latency.py --out results/latency              # every case
    .venv/bin/python benchmarks/node_latency.py --age --start --out results/latency_age
    .venv/bin/python benchmarks/node_latency.py --sizes 1280x720 --rates 30 --seconds 5

Systems: `node`; `naive_engine` and `naive_torch` (latency_systems.py); `echo`, DDS alone; `bare`, the parts
without ROS. All are started once per transport, and images go to one of them at a time, in turn, in each round.
Publisher and receiver are one process and one clock; images and poses are matched by stamp. What an image costs
its publisher counts, for `echo` too. 640x480 images hold the bundle's 16:9 view as 640x360, and the node crops
them. `naive_torch` has the bundle's networks with random weights and no look-up in the map. Writes latency.json,
latency.md, latency.png; with --age age.json, age.png; with --start start.json.
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
AGE_STEP_S = 0.05


def start_all(names, transport, options):
    """Processes by name; `bare` talks over pipes."""
    found = {}
    for name in names:
        if name == "node":
            found[name] = node_process(options.bundle, transport)
        else:
            found[name] = system_process(
                name, transport, options.bundle, options.drive, options.seed
            )
    return found


def summary(stretches, process):
    """Figures of one system in one case, over all rounds."""
    delays, used, worked, sent, cpu, seconds = [], 0, 0, 0, 0.0, 0.0
    for s in stretches:
        delays += [
            1e3 * (s.received_s[stamp] - at)
            for stamp, at in list(s.sent_s.items())[WARM_UP:]
            if stamp in s.received_s
        ]
        answered = s.received_s.keys() & s.sent_s.keys()
        used += len(answered)
        worked += len((s.worked_on | answered) & s.sent_s.keys())
        sent, cpu, seconds = sent + len(s.sent_s), cpu + s.cpu_s, seconds + s.seconds
    p50, p95, p99 = np.percentile(delays, [50, 95, 99]) if delays else [float("nan")] * 3
    return {
        "p50_ms": p50,
        "p95_ms": p95,
        "p99_ms": p99,
        "sent": sent,
        "used": worked,
        "poses": used,
        "skipped": sent - worked,
        "cpu_ms_per_frame": 1e3 * cpu / max(1, worked),
        "cores": cpu / seconds,
        "memory_mib": process.memory_mib(),
    }


def bare_summary(rows):
    """Medians of the parts, and percentiles of their sum."""
    whole = [row["decode"] + row["estimate"] for row in rows]
    p50, p95, p99 = np.percentile(whole, [50, 95, 99])
    parts = {name: float(np.median([row[name] for row in rows])) for name in rows[0]}
    return {"p50_ms": p50, "p95_ms": p95, "p99_ms": p99, "sent": len(rows), "parts_ms": parts}


def measure(transport, options):
    """Rows of one transport."""
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
                camera.prepare(size)  # its camera_info, to those that have started by now
            for rate in options.rates:
                case = {"transport": transport, "size": size, "rate": rate}
                stretches, rows = {name: [] for name in names}, []
                for _ in range(options.rounds):
                    asked = case | {"seconds": options.seconds}
                    bare.popen.stdin.write(json.dumps(asked) + "\n")
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
    """``(seconds, age_ms)`` of the newest pose, sampled; what is growing would slope upwards."""
    began = min(sent.sent_s.values())
    pairs = sorted(
        (sent.received_s[s], at) for s, at in sent.sent_s.items() if s in sent.received_s
    )
    received, taken = np.array(pairs).T
    newest = np.maximum.accumulate(taken)
    times = np.arange(received[0], max(sent.sent_s.values()) + 1.0 / rate, AGE_STEP_S)
    places = np.searchsorted(received, times, side="right") - 1
    return times - began, 1e3 * (times - newest[places])


def measure_age(options):
    """At 60 Hz, the first of the sizes and transports, each system alone for two minutes."""
    trained = Bundle.load(options.bundle).manifest.camera
    transport, names = options.transports[0], [n for n in SYSTEMS if n in options.systems]
    found = {}
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
            found[name] = figures | summary([s], process) | {"t": seconds, "age_ms": age}
            print(name, {k: round(float(v), 1) for k, v in figures.items()}, flush=True)
        finally:
            process.stop()
            camera.close()
    return found


def measure_start(options):
    """Seconds from launch to first pose, images coming at 30 Hz meanwhile."""
    trained = Bundle.load(options.bundle).manifest.camera
    transport, found = options.transports[0], {}
    for name in [n for n in SYSTEMS if n in options.systems]:
        found[name] = []
        for _ in range(options.starts):
            camera = Camera(trained, options.drive, transport, options.seed, [name])
            camera.prepare(options.sizes[-1])
            process = start_all([name], transport, options)[name]
            try:
                found[name].append(camera.wait_for(process))
            finally:
                process.stop()
                camera.close()
        print(f"{name}: first pose after {np.round(found[name], 2).tolist()} s", flush=True)
    return found


def save(path, value):
    """As JSON, numpy's numbers included."""
    path.write_text(json.dumps(value, indent=1, default=lambda v: np.asarray(v).tolist()) + "\n")


def main():
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--bundle", type=Path, default=ROOT / "models" / "town")
    parser.add_argument("--drive", type=Path, default=ROOT / "test" / "data" / "town_drive")
    parser.add_argument("--systems", nargs="+", default=SYSTEMS, choices=SYSTEMS)
    parser.add_argument("--sizes", nargs="+", default=["640x480", "1280x720"])
    parser.add_argument("--transports", nargs="+", default=["raw", "compressed"])
    parser.add_argument("--rates", nargs="+", type=float, default=[10.0, 30.0, 60.0])
    parser.add_argument("--seconds", type=float, default=10.0, help="of a system in a round")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--domain", type=int, default=71)
    parser.add_argument("--age", action="store_true", help="the newest pose's age, not the cases")
    parser.add_argument("--age-seconds", type=float, default=120.0)
    parser.add_argument("--start", action="store_true", help="time to first pose, not the cases")
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
        found = measure_age(options)
        save(options.out / "age.json", {"machine": machine, "systems": found})
        draw_age(found, options.out / "age.png")
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
