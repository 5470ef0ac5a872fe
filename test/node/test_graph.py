"""What the SROS 2 policy, the RViz and the Foxglove files name is what the running node has."""

import json
import re
import xml.etree.ElementTree as ET

import pytest
import yaml
from support.paths import ROOT, TOWN_BUNDLE

pytest.importorskip("rclpy", reason="ROS 2 is not installed here")

from support.ros_peer import NodeProcess, Peer, new_context

NODE = "relocalize"
OF_THE_FILTER = {"/odometry/filtered/map"}


@pytest.fixture(scope="module")
def graph(tmp_path_factory):
    """Topics and services of the node, in all its ways of being set up."""
    folder = tmp_path_factory.mktemp("graph")
    everything = {"publish_fix": True, "tf_mode": "map_to_odom", "gate": "odometry"}
    ways = [{**everything, "image_transport": "raw"}, {"image_transport": "compressed"}]
    found = {"publish": set(), "subscribe": set(), "reply": set(), "request": set()}
    context = new_context(117)
    peer = Peer(context)
    try:
        for index, way in enumerate(ways):
            log = folder / f"{index}.log"
            node = NodeProcess(log, bundle=TOWN_BUNDLE, autostart=True, **way)
            try:
                sending = peer.image if way["image_transport"] == "raw" else peer.compressed
                peer.wait_for_listener(sending)
                peer.spin(1.0)
                asked = {
                    "publish": peer.get_publisher_names_and_types_by_node,
                    "subscribe": peer.get_subscriber_names_and_types_by_node,
                    "reply": peer.get_service_names_and_types_by_node,
                    "request": peer.get_client_names_and_types_by_node,
                }
                for kind, ask in asked.items():
                    found[kind] |= {name for name, _ in ask(NODE, "/")}
            finally:
                node.stop()
    finally:
        peer.destroy_node()
        context.try_shutdown()
    return found


@pytest.fixture(autouse=True, scope="module")
def isolated():
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ROS_DOMAIN_ID", "117")
        patch.setenv("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST")
        yield


def test_the_policy_allows_exactly_what_the_node_does(graph):
    tree = ET.parse(ROOT / "config" / "sros2" / "relocalize.policy.xml")
    (profile,) = tree.iter("profile")
    assert (profile.get("ns"), profile.get("node")) == ("/", NODE)
    allowed = {"publish": set(), "subscribe": set(), "reply": set(), "request": set()}
    for group in profile:
        (kind,) = group.attrib
        assert group.get(kind) == "ALLOW"
        for item in group:
            name = item.text.replace("~/", f"/{NODE}/")
            allowed[kind].add(name if name.startswith("/") else f"/{name}")
    allowed["subscribe"].discard("/clock")  # with use_sim_time only
    assert allowed == graph


def test_rviz_and_foxglove_show_topics_of_the_node(graph):
    topics = graph["publish"] | graph["subscribe"]
    shown = yaml.safe_load((ROOT / "rviz" / "relocalize.rviz").read_text())
    displays = shown["Visualization Manager"]["Displays"]
    named = {d["Topic"]["Value"] for d in displays if "Topic" in d}
    assert {"/image", "/relocalize/pose_with_covariance"} <= named
    assert named - OF_THE_FILTER <= topics
    text = (ROOT / "rviz" / "relocalize.foxglove.json").read_text()
    layout = json.loads(text)
    found = set(re.findall(r'"(/[a-z_]+(?:/[a-z_]+)*)', text))
    assert {"/image/compressed", "/relocalize/status", "/diagnostics"} <= found <= topics
    assert set(re.findall(r'"(\w+!\w+)"', json.dumps(layout["layout"]))) <= set(
        layout["configById"]
    )
