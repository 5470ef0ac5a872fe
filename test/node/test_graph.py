"""The SROS 2 policy, the RViz and the Foxglove files name the topics and services of the node."""

import json
import re
import xml.etree.ElementTree as ET

import pytest
import yaml
from support.paths import ROOT, TOWN_BUNDLE

pytest.importorskip("rclpy", reason="ROS 2 is not installed here")

from support.ros_node import NodeThread
from support.ros_peer import DOMAINS, Peer, new_context
from support.waiting import PATIENCE_S

pytestmark = pytest.mark.ros

NODE = "relocalize"
FILTER_TOPICS = {"/odometry/filtered/map"}
TRANSPORTS = {"raw": "/image", "compressed": "/image/compressed"}


@pytest.fixture(scope="module")
def allowed():
    """Topics and services that the policy grants."""
    tree = ET.parse(ROOT / "config" / "sros2" / "relocalize.policy.xml")
    (profile,) = tree.iter("profile")
    assert (profile.get("ns"), profile.get("node")) == ("/", NODE)
    granted = {"publish": set(), "subscribe": set(), "reply": set(), "request": set()}
    for group in profile:
        (kind,) = group.attrib
        assert group.get(kind) == "ALLOW"
        for item in group:
            name = item.text.replace("~/", f"/{NODE}/")
            granted[kind].add(name if name.startswith("/") else f"/{name}")
    granted["subscribe"].discard("/clock")  # with use_sim_time only
    return granted


@pytest.fixture(scope="module")
def graph(allowed):
    """Topics and services of the node, with every feature switched on and either transport."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST")
        context = new_context(next(DOMAINS))
        peer = Peer(context)
        found = {kind: set() for kind in allowed}
        try:
            for transport in TRANSPORTS:
                for kind, names in names_of_a_node(peer, transport, allowed).items():
                    found[kind] |= names
        finally:
            peer.destroy_node()
            context.try_shutdown()
    return found


def names_of_a_node(peer, transport, allowed):
    """Topics and services of a node with this transport, by kind, after discovery."""
    expected = allowed["subscribe"] - set(TRANSPORTS.values()) | {TRANSPORTS[transport]}
    expected = {**allowed, "subscribe": expected}
    node = NodeThread(
        peer.domain,
        str,
        bundle=TOWN_BUNDLE,
        autostart=True,
        image_transport=transport,
        publish_fix=True,
        tf_mode="map_to_odom",
        gate="odometry",
    )
    queries = {
        "publish": peer.get_publisher_names_and_types_by_node,
        "subscribe": peer.get_subscriber_names_and_types_by_node,
        "reply": peer.get_service_names_and_types_by_node,
        "request": peer.get_client_names_and_types_by_node,
    }
    found = {}

    def all_there():
        for kind, query in queries.items():
            found[kind] = {name for name, _ in query(NODE, "/")}
        return all(expected[kind] <= found[kind] for kind in expected)

    try:
        peer.wait(lambda: NODE in peer.get_node_names(), "the node")
        peer.comes(all_there, PATIENCE_S)  # if not, the test names what is missing
        peer.spin(0.5)  # names that the policy does not allow may come later
        all_there()
    finally:
        node.stop()
    return found


def test_the_policy_allows_exactly_the_names_of_the_node(graph, allowed):
    assert graph == allowed


def test_rviz_and_foxglove_show_topics_of_the_node(graph):
    topics = graph["publish"] | graph["subscribe"]
    shown = yaml.safe_load((ROOT / "rviz" / "relocalize.rviz").read_text())
    displays = shown["Visualization Manager"]["Displays"]
    named = {d["Topic"]["Value"] for d in displays if "Topic" in d}
    assert {"/image", "/relocalize/pose_with_covariance"} <= named
    assert named - FILTER_TOPICS <= topics
    text = (ROOT / "rviz" / "relocalize.foxglove.json").read_text()
    layout = json.loads(text)
    found = set(re.findall(r'"(/[a-z_]+(?:/[a-z_]+)*)', text))
    assert {"/image/compressed", "/relocalize/status", "/diagnostics"} <= found <= topics
    assert set(re.findall(r'"(\w+!\w+)"', json.dumps(layout["layout"]))) <= set(
        layout["configById"]
    )
