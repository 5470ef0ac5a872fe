"""A peer that also reads status and diagnostics of the node, and calls its services."""

import re

import numpy as np
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from rclpy.qos import DurabilityPolicy, QoSProfile
from std_srvs.srv import SetBool, Trigger

from support.images import flat_image, jpeg_bytes
from support.ros_peer import RELIABLE, Peer, compressed_image, key

COLOUR = (51, 102, 204)  # blue, green, red
CAMERA = np.array([1000.0 + 8.0, 2000.0 + 4.0, 3.0 + 2.0])
"""Position of the camera in an image of `COLOUR`, according to the small bundle."""
LATCHED_ONE = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
LATCHED_MANY = QoSProfile(depth=50, durability=DurabilityPolicy.TRANSIENT_LOCAL)


class Watcher(Peer):
    """`statuses` and `diagnostics` in the order of their arrival; `outcomes`: statuses by image stamp."""

    def __init__(self, context):
        super().__init__(context)
        self.statuses, self.outcomes, self.diagnostics = [], {}, []
        self.create_subscription(DiagnosticArray, "/diagnostics", self._on_diagnostics, RELIABLE)
        self.create_subscription(
            DiagnosticStatus, "relocalize/status", self._on_status, LATCHED_MANY
        )

    def _on_diagnostics(self, message):
        self.diagnostics += message.status

    def _on_status(self, status):
        self.statuses.append(status)
        if "stamp" in values(status):  # a status without a stamp is of the node, not of an image
            seconds, nanoseconds = values(status)["stamp"].split(".")
            self.outcomes[int(seconds), int(nanoseconds)] = status

    def figures(self):
        """The values of the newest message on /diagnostics; empty before the first."""
        return values(self.diagnostics[-1]) if self.diagnostics else {}

    def wait_for_count(self, name, at_least=1):
        self.wait(lambda: int(self.figures().get(name, 0)) >= at_least, f"{name} in /diagnostics")

    def wait_for_status(self, pattern):
        """Wait for a status with this message. Returns the first one."""
        self.wait(
            lambda: any(re.search(pattern, s.message) for s in self.statuses), f"status {pattern!r}"
        )
        return next(s for s in self.statuses if re.search(pattern, s.message))

    def wait_for_diagnosis(self, pattern):
        """Wait for diagnostics with this message, from now on. Returns the first ones."""
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

    def localize(self, index, **picture):
        """Publish an image until its poses are there. Returns the position of the base.

        It is the position of the camera, because the mount is the identity.
        """
        pose, _ = self.send_and_wait(self.compressed, self.picture(index, **picture))
        return position(pose)

    def outcome(self, message, publisher=None):
        """Publish an image until its status is there, and its poses if it has any. Returns the status."""
        stamp_key = key(message.header.stamp)
        publisher = publisher or self.compressed
        self.send_until(publisher, message, lambda: stamp_key in self.outcomes, "a status")
        if self.outcomes[stamp_key].level == DiagnosticStatus.OK:
            self.wait(
                lambda: stamp_key in self.poses and stamp_key in self.covariances, "the poses"
            )
        return self.outcomes[stamp_key]

    def refusal(self, message, publisher=None):
        """As `outcome`, for an image that must have no pose. Returns the message of the status."""
        self.expect_no_pose(message)
        status = self.outcome(message, publisher)
        assert status.level != DiagnosticStatus.OK
        return status.message


def values(status):
    return {item.key: item.value for item in status.values}


def position(pose):
    p = pose.pose.position
    return np.array([p.x, p.y, p.z])
