"""Fixtures: a peer in a ROS domain of its own, and functions that start the node."""

import itertools
import sys
from contextlib import ExitStack

import pytest


@pytest.fixture
def peer(monkeypatch):
    from support.ros_peer import DOMAINS, in_domain
    from support.ros_watcher import Watcher

    with in_domain(next(DOMAINS), monkeypatch, Watcher) as watcher:
        yield watcher


@pytest.fixture
def start(peer, tmp_path, small_bundle):
    """A function that starts the node in a thread. `mount=False`: without a mount on /tf_static."""
    from support.ros_node import NodeThread, output_to

    log = tmp_path / "log.txt"
    with ExitStack() as output:

        def create(number, **parameters):
            if (
                number == 0
            ):  # not in the fixture's set-up: after it pytest redirects the output again
                output.enter_context(output_to(log))
            return NodeThread(peer.domain, log.read_text, **parameters)

        yield from starters(peer, small_bundle, create)
    if log.exists():
        sys.stderr.write(log.read_text())  # for the report of a failed test


@pytest.fixture
def start_process(peer, tmp_path, small_bundle):
    """As `start`, but the node runs in a process."""
    from support.ros_node import NodeProcess

    yield from starters(
        peer,
        small_bundle,
        lambda number, **parameters: NodeProcess(tmp_path / f"node{number}.log", **parameters),
    )


def starters(peer, bundle, create):
    """Yield a function that starts a node, and stop its nodes after the test.

    create: starts a node with a number and parameters.
    """
    from support.ros_peer import transform
    from tf2_msgs.msg import TFMessage

    nodes = ExitStack()
    numbers = itertools.count()

    def starter(*, mount=True, **parameters):
        defaults = {"bundle": bundle, "autostart": True, "image_transport": "compressed"}
        defaults["frozen_images"] = 0  # most tests send the same image several times
        if mount:
            peer.static.publish(TFMessage(transforms=[transform("base_link", "camera_optical")]))
        peer.warm = False
        node = create(next(numbers), **(defaults | parameters))
        nodes.callback(node.stop)
        return node

    with nodes:
        yield starter
