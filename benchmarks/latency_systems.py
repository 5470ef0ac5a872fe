"""The systems that `node_latency.py` compares with the real node, each in its own process.

`echo` publishes an empty pose for each image at once: the latency of DDS alone. `naive_engine` and
`naive_torch` are nodes as they are often written, with this package's engines and with torch eager: a reliable queue of ten images, and all work in the
callback. `bare` has no ROS: it reads cases from stdin, and writes the milliseconds of decoding, preprocessing
and inference to stdout.
"""

from __future__ import annotations

import json
import signal
import sys
import threading
import time
from functools import partial

import cv2
import numpy as np
from latency_images import CameraOfSize, encoded_images, image_size

from rgsiam_ros.camera.decoding import decode_compressed, decode_raw
from rgsiam_ros.camera.model import Camera
from rgsiam_ros.localization.relocalizer import Relocalizer

QUEUE_IMAGES = 10


def torch_pipeline(bundle, seed):
    """A function that estimates positions with the bundle's absolute network in torch eager, with random weights."""
    import torch

    from rgsiam_ros.bundle import Bundle
    from rgsiam_ros.bundle.golden import ABSOLUTE_OUTPUTS
    from rgsiam_training.config import NetworkConfig
    from rgsiam_training.model.network import AbsoluteBranch, SiameseNetwork

    part = Bundle.load(bundle).manifest.absolute_part
    size = part.preprocessing
    width, height = size.input_width, size.input_height
    config = NetworkConfig(backbone=part.network.backbone, pretrained=False)
    torch.manual_seed(seed)
    network = SiameseNetwork(config, height, width, torch.rand(config.anchors, 3)).eval()
    absolute = AbsoluteBranch(network, ABSOLUTE_OUTPUTS).eval()
    mean, std = torch.tensor(size.mean).view(3, 1, 1), torch.tensor(size.std).view(3, 1, 1)

    @torch.no_grad()
    def estimate(image_HW3):
        small = cv2.resize(image_HW3, (width, height), interpolation=cv2.INTER_AREA)
        rgb = torch.from_numpy(cv2.cvtColor(small, cv2.COLOR_BGR2RGB)).permute(2, 0, 1)
        outputs = absolute(((rgb.float() / 255.0 - mean) / std)[None])
        return outputs[0][0].double().numpy()

    return estimate


def engine_pipeline(bundle, _seed):
    """A function that estimates positions with this package as a library."""
    relocalizer = Relocalizer.from_bundle(bundle)
    cameras = {}

    def estimate(image_HW3):
        height, width = image_HW3.shape[:2]
        if (width, height) not in cameras:
            cameras[width, height] = CameraOfSize(relocalizer.manifest.camera, width, height)
            relocalizer.use_camera(Camera(**cameras[width, height].fields()))
        return relocalizer.estimate(image_HW3).T_map_camera[:3, 3]

    return estimate


def decode(message, transport):
    """The BGR image of a message, as it is often written: only bgr8 and JPEG."""
    if transport == "raw":
        pixels = np.frombuffer(message.data, np.uint8)
        return pixels.reshape(message.height, message.width, 3)
    return cv2.imdecode(np.frombuffer(message.data, np.uint8), cv2.IMREAD_COLOR)


def serve(name, transport, estimate, qos_name):
    """Run a node that publishes a pose for each image in its callback, until SIGINT.

    estimate: a function from a BGR image to a position, None for an empty pose; qos_name: ``queue`` or
    ``newest``.
    """
    import rclpy
    from geometry_msgs.msg import PoseWithCovarianceStamped
    from rclpy.executors import SingleThreadedExecutor
    from rclpy.qos import QoSProfile, ReliabilityPolicy
    from rclpy.signals import SignalHandlerOptions
    from sensor_msgs.msg import CompressedImage, Image

    stop = threading.Event()
    signal.signal(signal.SIGINT, lambda *_: stop.set())
    rclpy.init(signal_handler_options=SignalHandlerOptions.NO)
    node = rclpy.create_node("relocalize", namespace=f"/{name}")
    reliable = QoSProfile(depth=QUEUE_IMAGES, reliability=ReliabilityPolicy.RELIABLE)
    newest = QoSProfile(depth=1, reliability=ReliabilityPolicy.BEST_EFFORT)
    publisher = node.create_publisher(
        PoseWithCovarianceStamped, "relocalize/pose_with_covariance", reliable
    )

    def callback(message):
        out = PoseWithCovarianceStamped(header=message.header)
        if estimate is not None:
            p = out.pose.pose.position
            p.x, p.y, p.z = (float(v) for v in estimate(decode(message, transport)))
        publisher.publish(out)

    kind, topic = (Image, "image") if transport == "raw" else (CompressedImage, "image/compressed")
    node.create_subscription(kind, topic, callback, reliable if qos_name == "queue" else newest)
    executor = SingleThreadedExecutor()
    executor.add_node(node)
    while not stop.is_set():
        executor.spin_once(timeout_sec=0.2)
    rclpy.try_shutdown()


def bare(bundle, drive, seed):
    """Measure the parts without ROS at the rate of the camera, for each case that is read from stdin."""
    relocalizer = Relocalizer.from_bundle(bundle)
    for line in sys.stdin:
        case = json.loads(line)
        width, height = image_size(case["size"])
        camera = CameraOfSize(relocalizer.manifest.camera, width, height)
        relocalizer.use_camera(Camera(**camera.fields()))
        images = encoded_images(drive, case["size"], case["transport"], seed)
        decoder = (
            partial(decode_raw, "bgr8", height, width, 3 * width, False)
            if case["transport"] == "raw"
            else decode_compressed
        )
        rows, began = [], time.monotonic()
        for i in range(round(case["seconds"] * case["rate"])):
            time.sleep(max(0.0, began + i / case["rate"] - time.monotonic()))
            start = time.perf_counter()
            image = decoder(images[i % len(images)])
            decoded = time.perf_counter()
            timings = relocalizer.estimate(image).timings_ms
            done = time.perf_counter()
            seconds = {"decode": decoded - start, "estimate": done - decoded}
            rows.append(timings | {name: 1e3 * value for name, value in seconds.items()})
        print(json.dumps(rows[min(5, len(rows) - 1) :]), flush=True)


def main():
    """Run a system. Arguments: ``SYSTEM TRANSPORT BUNDLE DRIVE SEED``."""
    name, transport, bundle, drive, seed = sys.argv[1:]
    if name == "bare":
        bare(bundle, drive, int(seed))
    elif name == "echo":
        serve(name, transport, None, "newest")
    else:
        pipeline = torch_pipeline if name == "naive_torch" else engine_pipeline
        serve(name, transport, pipeline(bundle, int(seed)), "queue")


if __name__ == "__main__":
    main()
