"""`make soak`: run the real node at 30 Hz for a long time, with camera faults, and check that nothing grows.

Every ten seconds the camera has a fault of two seconds. Within five seconds after it the node must publish a
pose again. The run also fails if the node ends, or if its memory, threads, open files or latency grow by more
than the bounds below between the end of the warm-up and the end of the run. The growth is that of a robust
line (Theil-Sen). Writes soak.json, soak.png and the node's log.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import rclpy
from diagnostic_msgs.msg import DiagnosticArray
from geometry_msgs.msg import PoseWithCovarianceStamped, TransformStamped
from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from rcl_interfaces.msg import Parameter, ParameterValue
from rcl_interfaces.srv import SetParameters
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.qos import QoSProfile, ReliabilityPolicy
from scipy.stats import theilslopes
from sensor_msgs.msg import CompressedImage
from std_srvs.srv import SetBool
from tf2_msgs.msg import TFMessage

from rgsiam_ros.geometry.conversions import quaternion_xyzw_of, stamp_to_ns
from rgsiam_ros.recordings.rosbag import read_drive

ROOT = Path(__file__).resolve().parent.parent
NAMESPACE = "/rgsiam_soak"
FAULT_EVERY_S, RECOVERED_WITHIN_S, START_WITHIN_S = 10.0, 5.0, 60.0
WARM_UP_SHARE, LONGEST_WARM_UP_S = 0.25, 120.0
"""Length of the warm-up: a share of the run, and its upper limit."""
MOST_MB, MOST_THREADS, MOST_FILES = 20.0, 2.0, 4.0
"""Largest growth of resident memory, threads and open files."""
MOST_DELAY_MS, MOST_DELAY_SHARE = 10.0, 0.5
"""Largest growth of the latency: in milliseconds, or as a share of its median if that is larger."""
RELIABLE = QoSProfile(depth=10, reliability=ReliabilityPolicy.RELIABLE)
FAULT_LASTS_S = 2.0


class Camera(Node):
    """Sends images, with and without faults, and receives the poses and the diagnostics."""

    def __init__(self, jpegs: list[bytes]) -> None:
        """jpegs: the encoded images of the drive."""
        super().__init__("soak", namespace=NAMESPACE)
        self.jpegs, self.index, self.offset_ns = jpegs, 0, 0
        self.sent: dict[int, float] = {}
        """Monotonic time at which each healthy image was sent, by its stamp in nanoseconds."""
        self.answers: list[tuple[float, float]] = []
        """Monotonic time at which each pose was received, and its latency in milliseconds."""
        self.diagnostics: dict[str, str] = {}
        self.publisher = self.create_publisher(CompressedImage, "image/compressed", RELIABLE)
        self.tf = self.create_publisher(TFMessage, "/tf", RELIABLE)
        self._clients_of: dict[str, Any] = {}
        name = "relocalize/pose_with_covariance"
        self.create_subscription(PoseWithCovarianceStamped, name, self._receive_pose, RELIABLE)
        self.create_subscription(
            DiagnosticArray, "/diagnostics", self._receive_diagnostics, RELIABLE
        )

    def send(
        self,
        content: bytes | None = None,
        kind: str = "jpeg",
        stamp: int | None = None,
        nanosec: int | None = None,
    ) -> None:
        """Send the next image of the drive, or `content` in its place.

        kind: the format in the message; stamp: nanoseconds, None for the current time; nanosec: the
        field of that name in the stamp, None for what follows from the stamp.
        """
        now_ns = time.time_ns() + self.offset_ns if stamp is None else stamp
        message = CompressedImage(format=kind)
        message.header.frame_id = "camera_optical_frame"
        message.header.stamp.sec, message.header.stamp.nanosec = divmod(now_ns, 10**9)
        if nanosec is not None:
            message.header.stamp.nanosec = nanosec
        message.data = self.jpegs[self.index % len(self.jpegs)] if content is None else content
        self.index += 1
        if content is None and nanosec is None:
            self.sent[now_ns] = time.monotonic()
        self.publisher.publish(message)
        if len(self.sent) > 300:
            self.sent.pop(next(iter(self.sent)))

    def ask(self, kind: Any, name: str, **request: Any) -> None:
        """Call a service of the node, and do not wait for the answer."""
        if name not in self._clients_of:
            self._clients_of[name] = self.create_client(kind, f"relocalize/{name}")
        self._clients_of[name].call_async(kind.Request(**request))

    def _receive_pose(self, message: PoseWithCovarianceStamped) -> None:
        stamp = stamp_to_ns(message.header.stamp)
        sent, now = self.sent.get(stamp), time.monotonic()
        if sent is not None:
            self.answers.append((now, (now - sent) * 1e3))

    def _receive_diagnostics(self, message: DiagnosticArray) -> None:
        for status in message.status:
            self.diagnostics |= {pair.key: pair.value for pair in status.values}


class Faults:
    """The faults of the camera, by name. Each is a function that sends the i-th message of the fault."""

    def __init__(self, camera: Camera) -> None:
        self.camera = camera
        whole = camera.jpegs[0]
        self.large = cv2.imencode(".jpg", np.full((4320, 7680, 3), 90, np.uint8))[1].tobytes()
        self.small = cv2.imencode(".jpg", np.full((45, 80, 3), 90, np.uint8))[1].tobytes()
        progressive = [cv2.IMWRITE_JPEG_PROGRESSIVE, 1]
        scans = cv2.imencode(".jpg", np.full((2048, 2048, 3), 90, np.uint8), progressive)[
            1
        ].tobytes()
        first = scans.index(b"\xff\xda")
        second = scans.index(b"\xff\xda", first + 2)
        self.many_scans = scans[:first] + scans[first:second] * 1200 + scans[first:]
        noise = np.random.default_rng(0).integers(0, 256, len(whole), np.uint8).tobytes()
        self.kinds = {
            "truncated": lambda i: camera.send(whole[: len(whole) // (i % 5 + 2)]),
            "empty": lambda i: camera.send(b""),
            "noise": lambda i: camera.send(noise),
            "other format": lambda i: camera.send(b"GIF89a" + noise, "gif"),
            "damaged": lambda i: camera.send(whole[:700] + noise[:200] + whole[900:]),
            "silent": lambda i: None,
            "frozen": lambda i: camera.send(whole),
            "8k": lambda i: camera.send(self.large) if i % 10 == 0 else None,
            "another size": lambda i: camera.send(self.small),
            "stamp zero": lambda i: camera.send(stamp=0),
            "stamp of no time": lambda i: camera.send(nanosec=10**9 + i),
            "bytes after the end": lambda i: camera.send(whole + noise[:i]),
            "many scans": lambda i: camera.send(self.many_scans),
            "frames": self._frames,
            "requests": self._requests,
            "disabled and enabled": lambda i: camera.ask(SetBool, "enable", data=i >= 10),
            "backwards": self._backwards,
        }

    def _frames(self, i: int) -> None:
        """Frames above themselves, and other names in each message."""
        names = [("base_link", "base_link"), ("above", "below"), ("below", "above")]
        names += [(f"hostile{i}", f"frame{i}_{number}") for number in range(10)]
        message = TFMessage()
        for parent, child in names:
            item = TransformStamped(child_frame_id=child)
            item.header.frame_id = parent
            message.transforms.append(item)
        self.camera.tf.publish(message)
        self.camera.send()

    def _requests(self, i: int) -> None:
        """Requests that the node must refuse."""
        unknown_type = Parameter(name="bundle", value=ParameterValue(type=99))
        long_name = Parameter(name="bundle", value=ParameterValue(type=4, string_value="n" * 300))
        self.camera.ask(ChangeState, "change_state", transition=Transition(id=i % 256 | 128))
        self.camera.ask(
            SetParameters, "set_parameters", parameters=[(unknown_type, long_name)[i % 2]]
        )
        self.camera.send()

    def _backwards(self, i: int) -> None:
        if i == 0:
            self.camera.offset_ns -= 60 * 10**9
        self.camera.send()


def start_node(bundle: Path, out: Path, pose_mount: np.ndarray) -> subprocess.Popen:
    """Start the node as on a vehicle. pose_mount: ``T_base_camera``, ``(4, 4)``."""
    xyzw = quaternion_xyzw_of(pose_mount)
    parameters = {
        "bundle": bundle.resolve(),
        "image_transport": "compressed",
        "autostart": "true",
        "mount_translation": [float(v) for v in pose_mount[:3, 3]],
        "mount_quaternion_xyzw": [float(v) for v in xyzw],
    }
    command = [sys.executable, "-m", "rgsiam_ros.node.relocalize", "--ros-args"]
    command += ["-r", f"__ns:={NAMESPACE}"]
    for name, value in parameters.items():
        command += ["-p", f"{name}:={value}"]
    environment = {**os.environ, "ROS_LOG_DIR": str(out)}
    with (out / "node.log").open("w") as log:
        return subprocess.Popen(command, stdout=log, stderr=log, env=environment)


def sample(pid: int) -> dict[str, float]:
    """Resident memory in MB, threads, open files and CPU seconds of a process."""
    status = Path(f"/proc/{pid}/status").read_text().splitlines()
    values = {line.split(":")[0]: line.split()[1] for line in status if len(line.split()) > 1}
    ticks = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[11:13]
    return {
        "rss_mb": int(values["VmRSS"]) / 1024,
        "threads": int(values["Threads"]),
        "files": len(os.listdir(f"/proc/{pid}/fd")),
        "cpu_s": sum(map(int, ticks)) / os.sysconf("SC_CLK_TCK"),
    }


def run(camera: Camera, process: subprocess.Popen, seconds: float, rate: float) -> dict:
    """Send images and faults, and sample the process. Times are seconds from the first pose."""
    executor = SingleThreadedExecutor()
    executor.add_node(camera)
    began = time.monotonic()
    while not camera.answers and time.monotonic() < began + START_WITHIN_S:
        camera.send()
        executor.spin_once(timeout_sec=0.1)
    faults = Faults(camera)
    names = list(faults.kinds)
    start = time.monotonic()
    camera.answers.clear()
    samples, past_faults, sent, tick, sampled = [], [], 0, 0, 0.0
    while (now := time.monotonic() - start) < seconds and process.poll() is None:
        cycle, within = divmod(now, FAULT_EVERY_S)
        has_fault = (
            within < FAULT_LASTS_S
            and 1 <= cycle <= (seconds - 2 * RECOVERED_WITHIN_S) / FAULT_EVERY_S
        )
        if has_fault:
            name = names[int(cycle - 1) % len(names)]
            if len(past_faults) < cycle:
                past_faults.append({"at_s": now, "fault": name, "count": 0})
            faults.kinds[name](past_faults[-1]["count"])
            past_faults[-1]["count"] += 1
        else:
            camera.send()
        sent += 1
        tick += 1
        while (left := start + tick / rate - time.monotonic()) > 0.0:
            executor.spin_once(timeout_sec=left)
        executor.spin_once(timeout_sec=0.0)
        tick = max(tick, int((time.monotonic() - start) * rate) - 1)  # never catch up in a burst
        if now - sampled >= 1.0:
            samples.append({"at_s": now, **sample(process.pid)})
            sampled = now
    executor.shutdown()
    answers = [(at - start, delay) for at, delay in camera.answers]
    return {
        "seconds": now,
        "sent": sent,
        "samples": samples,
        "faults": past_faults,
        "answers": answers,
    }


def growth(at: np.ndarray, values: np.ndarray, from_s: float, to_s: float) -> float:
    """How much a robust line through the values (Theil-Sen) rises from `from_s` to `to_s`."""
    kept = at >= from_s
    if kept.sum() < 5:
        return 0.0
    return float(theilslopes(values[kept], at[kept])[0] * (to_s - from_s))


def judge(recorded: dict, seconds: float, status: int | None) -> tuple[dict, list[str]]:
    """The figures of a run, and one line for each problem. status: of the node, None if it still runs."""
    warm = min(WARM_UP_SHARE * seconds, LONGEST_WARM_UP_S)
    at = np.array([s["at_s"] for s in recorded["samples"]])
    answered, delays = np.array(recorded["answers"]).reshape(-1, 2).T
    problems = [] if status is None else [f"the node ended with status {status}"]
    figures: dict = {"warm_up_s": warm, "answers": len(delays), "growth": {}}
    bounds = {"rss_mb": MOST_MB, "threads": MOST_THREADS, "files": MOST_FILES}
    for name, bound in bounds.items():
        values = np.array([s[name] for s in recorded["samples"]], float)
        figures["growth"][name] = rise = growth(at, values, warm, seconds)
        figures[f"{name}_last"] = float(values[-1]) if len(values) else None
        if rise > bound:
            problems.append(f"{name} grew by {rise:.1f}, at most {bound:g} is allowed")
    late = delays[answered >= warm]
    if not len(late):
        return figures, [*problems, "no pose after the warm-up"]
    p50, p95, p99 = (float(np.percentile(late, q)) for q in (50, 95, 99))
    rise = growth(answered[::10], delays[::10], warm, seconds)
    figures |= {"delay_ms": {"p50": p50, "p95": p95, "p99": p99}}
    figures["growth"]["delay_ms"] = rise
    if rise > max(MOST_DELAY_MS, MOST_DELAY_SHARE * p50):
        problems.append(f"the latency grew by {rise:.1f} ms, its median is {p50:.1f} ms")
    for fault in recorded["faults"]:
        end_s = fault["at_s"] + FAULT_LASTS_S
        after = answered[answered >= end_s]
        fault["answered_again_after_s"] = float(after[0] - end_s) if len(after) else None
        if not len(after) or after[0] - end_s > RECOVERED_WITHIN_S:
            fault_name = fault["fault"]
            problems.append(f"no pose within {RECOVERED_WITHIN_S:g} s after the fault {fault_name}")
    cpu = [s["cpu_s"] for s in recorded["samples"]]
    figures["cpu_cores"] = (cpu[-1] - cpu[0]) / (at[-1] - at[0]) if len(cpu) > 1 else None
    return figures, problems


def draw(recorded: dict, path: Path, title: str) -> None:
    """Draw memory, latency and rate of the poses over time, with the faults."""
    figure = Figure(figsize=(11, 8), layout="constrained")
    FigureCanvasAgg(figure)
    memory, delay, answers = figure.subplots(3, 1, sharex=True)
    at = [s["at_s"] for s in recorded["samples"]]
    memory.plot(at, [s["rss_mb"] for s in recorded["samples"]], label="resident memory")
    memory.set_ylabel("MB")
    memory.set_ylim(bottom=0)
    answered, delays = np.array(recorded["answers"]).reshape(-1, 2).T
    delay.plot(answered, delays, ".", markersize=1, alpha=0.4, color="0.6")
    edges = np.arange(0.0, recorded["seconds"] + 5.0, 5.0)
    bins = np.digitize(answered, edges)
    for quantile, colour in ((50, "tab:blue"), (95, "tab:orange")):
        kept = [i for i in range(1, len(edges)) if (bins == i).sum() > 5]
        line = [np.percentile(delays[bins == i], quantile) for i in kept]
        delay.plot(edges[kept] - 2.5, line, color=colour, label=f"p{quantile} of 5 s")
    delay.set_ylabel("latency from image to pose (ms)")
    delay.set_yscale("log")
    counts = np.histogram(answered, edges)[0] / 5.0
    answers.step(edges[:-1], counts, where="post", label="poses per second")
    answers.set_ylim(bottom=0)
    answers.set_xlabel("time (s); red: faults")
    for axes in (memory, delay, answers):
        for fault in recorded["faults"]:
            axes.axvspan(fault["at_s"], fault["at_s"] + FAULT_LASTS_S, color="tab:red", alpha=0.15)
        axes.grid(alpha=0.3)
        axes.legend(loc="upper right")
    if len(recorded["faults"]) <= 24:
        for fault in recorded["faults"]:
            answers.text(fault["at_s"], 0.3, fault["fault"], rotation=90, fontsize=7, va="bottom")
    figure.suptitle(title)
    figure.savefig(path, dpi=100)


def main() -> int:
    """Run the benchmark. Returns 1 if it found a problem."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--rate", type=float, default=30.0)
    parser.add_argument("--bundle", type=Path, default=ROOT / "models" / "town")
    parser.add_argument("--drive", type=Path, default=ROOT / "test" / "data" / "town_drive")
    parser.add_argument("--out", type=Path, default=ROOT / "results" / "soak")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    drive = read_drive(options.drive)
    jpegs = [image.message.data.tobytes() for image in drive.read_images()]
    rclpy.init()
    camera = Camera(jpegs)
    process = start_node(options.bundle, options.out, drive.T_base_camera)
    seconds = options.minutes * 60.0
    try:
        recorded = run(camera, process, seconds, options.rate)
        status = process.poll()
    finally:
        process.send_signal(signal.SIGINT)
        try:
            process.wait(10.0)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
    figures, problems = judge(recorded, seconds, status)
    if process.returncode:
        problems.append(f"the node stopped with status {process.returncode}")
    result = {"problems": problems, **figures, "diagnostics": camera.diagnostics, **recorded}
    (options.out / "soak.json").write_text(json.dumps(result, indent=1) + "\n")
    title = f"{options.rate:g} Hz for {options.minutes:g} min: {'; '.join(problems) or 'passed'}"
    draw(recorded, options.out / "soak.png", title)
    rclpy.try_shutdown()
    print(json.dumps(figures, indent=1))
    print(f"plot: {options.out / 'soak.png'}\nlog: {options.out / 'node.log'}")
    print("\n".join(f"FAILED: {problem}" for problem in problems) or "passed")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
