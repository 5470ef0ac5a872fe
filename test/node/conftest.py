"""A peer in a domain of its own, and nodes for it to talk to."""

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
def start(peer, capfd, small_bundle):
    """A function that starts a node in a thread, with a mount on /tf_static unless told not to."""
    from support.ros_node import NodeThread

    logged = []

    def everything_logged():
        captured = capfd.readouterr()
        logged.extend((captured.out, captured.err))
        return "".join(logged)

    yield from starters(
        peer, small_bundle, lambda _, **given: NodeThread(peer.domain, everything_logged, **given)
    )
    sys.stderr.write(everything_logged())  # for the report of a failed test


@pytest.fixture
def start_process(peer, tmp_path, small_bundle):
    """As `start`, in a process of its own."""
    from support.ros_node import NodeProcess

    yield from starters(
        peer,
        small_bundle,
        lambda number, **given: NodeProcess(tmp_path / f"node{number}.log", **given),
    )


def starters(peer, bundle, create):
    """create: a node of this number with these parameters."""
    from support.ros_peer import transform
    from tf2_msgs.msg import TFMessage

    nodes = ExitStack()
    numbers = itertools.count()

    def starter(*, mount=True, **parameters):
        given = {"bundle": bundle, "autostart": True, "image_transport": "compressed"}
        given["frozen_images"] = 0  # most tests send one picture again and again
        if mount:
            peer.static.publish(TFMessage(transforms=[transform("base_link", "camera_optical")]))
        peer.warm = False
        node = create(next(numbers), **{**given, **parameters})
        nodes.callback(node.stop)
        return node

    with nodes:
        yield starter
