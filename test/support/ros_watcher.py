"""A peer that also listens to what the node says of itself, and calls its services."""

import re

import numpy as np
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from rclpy.qos import DurabilityPolicy, QoSProfile
from std_srvs.srv import SetBool, Trigger
from tf2_msgs.msg import TFMessage

from support.images import flat_image, jpeg_bytes
from support.ros_peer import (
    RELIABLE,
    NodeProcess,
    Peer,
    compressed_image,
    in_domain,
    key,
    transform,
)

COLOUR = (51, 102, 204)  # blue, green, red
CAMERA = np.array([1000.0 + 8.0, 2000.0 + 4.0, 3.0 + 2.0])  # what the small bundle makes of it
LATCHED_ONE = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)


class Watcher(Peer):
    def __init__(self, context):
        super().__init__(context)
        self.statuses, self.diagnostics = [], []
        self.create_subscription(DiagnosticArray, "/diagnostics", self._on_diagnostics, RELIABLE)
        self.create_subscription(
            DiagnosticStatus, "relocalize/status", self.statuses.append, LATCHED_ONE
        )

    def _on_diagnostics(self, message):
        self.diagnostics += message.status

    def figures(self):
        """The newest of /diagnostics; empty before the first."""
        return values(self.diagnostics[-1]) if self.diagnostics else {}

    def wait_for_count(self, name, at_least=1):
        self.wait(lambda: int(self.figures().get(name, 0)) >= at_least, f"{name} in /diagnostics")

    def wait_for_status(self, pattern):
        """The first status from now on, the latched one included, that says so."""
        self.wait(
            lambda: any(re.search(pattern, s.message) for s in self.statuses), f"status {pattern!r}"
        )
        return next(s for s in self.statuses if re.search(pattern, s.message))

    def wait_for_diagnosis(self, pattern):
        self.diagnostics.clear()
        self.wait(
            lambda: any(re.search(pattern, s.message) for s in self.diagnostics),
            f"diagnosis {pattern!r}",
        )
        return next(s for s in self.diagnostics if re.search(pattern, s.message))

    def enable(self, on):
        return self.call(SetBool, "relocalize/enable", SetBool.Request(data=on))

    def reset(self):
        return self.call(Trigger, "relocalize/reset", Trigger.Request())

    def picture(self, index, colour=COLOUR, width=128, height=96):
        content = jpeg_bytes(flat_image(*colour, width=width, height=height))
        return compressed_image(content, index)

    def answer(self, index, **picture):
        """Position of the base, which is the camera's."""
        pose, _ = self.send_and_wait(self.compressed, self.picture(index, **picture))
        p = pose.pose.position
        return np.array([p.x, p.y, p.z])

    def has_pose(self, message):
        return key(message.header.stamp) in self.poses


def values(status):
    return {item.key: item.value for item in status.values}


def watchers(domains, monkeypatch):
    """For a fixture: one watcher in a domain of its own."""
    with in_domain(next(domains), monkeypatch, Watcher) as node:
        yield node


def starters(peer, folder, bundle):
    """For a fixture: a function that starts nodes, with a mount on /tf_static unless told not to."""
    running = []

    def starter(*, mount=True, **parameters):
        given = {"bundle": bundle, "autostart": True, "image_transport": "compressed"}
        given["frozen_images"] = 0  # these tests send one picture again and again
        if mount:
            peer.static.publish(TFMessage(transforms=[transform("base_link", "camera_optical")]))
        node = NodeProcess(folder / f"node{len(running)}.log", **{**given, **parameters})
        running.append(node)
        return node

    yield starter
    for node in running:
        node.stop()
