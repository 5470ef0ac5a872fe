"""The topics that relocalize.launch.py gives to the node. launch itself is not installed here."""

import pytest
from support.paths import ROOT
from support.recorded_launch import started_by

LAUNCH = ROOT / "launch" / "relocalize.launch.py"


@pytest.fixture
def remappings(monkeypatch):
    def of(**arguments):
        (node,) = started_by(monkeypatch, LAUNCH, **arguments)
        assert node.namespace.args == ("namespace",)
        return dict(node.remappings)

    return of


def test_the_default_topics_move_with_the_namespace(remappings):
    assert remappings() == {
        "image": "camera/image_raw",
        "image/compressed": "camera/image_raw/compressed",
    }


def test_camera_info_is_given_only_if_it_is_named(remappings):
    assert "camera_info" not in remappings(image_topic="/front/image_raw")
    found = remappings(image_topic="/front/image_raw", camera_info_topic="/calibration")
    assert found["image"] == "/front/image_raw"
    assert found["camera_info"] == "/calibration"


@pytest.mark.parametrize(("text", "moved"), [("false", False), ("true", True), ("True", True)])
def test_tf_moves_with_the_namespace_if_asked(remappings, text, moved):
    found = remappings(namespaced_tf=text)
    assert ("/tf" in found, "/tf_static" in found) == (moved, moved)
    if moved:
        assert (found["/tf"], found["/tf_static"]) == ("tf", "tf_static")
