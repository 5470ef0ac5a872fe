"""camera_info on the topics of image_transport: another camera's, a region, an odd lens, rectified images."""

import itertools

import pytest

pytest.importorskip("rclpy", reason="ROS 2 is not installed here")

from diagnostic_msgs.msg import DiagnosticStatus
from sensor_msgs.msg import CameraInfo, CompressedImage, Image
from support.images import flat_image
from support.ros_peer import RELIABLE, camera_info, raw_image
from support.ros_watcher import COLOUR

pytestmark = pytest.mark.ros


@pytest.fixture
def sender(peer):
    """A function that publishes a camera_info with an image until the image's status fits."""
    stamps = itertools.count(1)

    def until(info, fits, publisher=None, picture=None, **size):
        found = []

        def met():
            (publisher or peer.info).publish(info)
            message = peer.picture(next(stamps), **size)
            found.append(peer.outcome(message, picture))
            return fits(found[-1])

        peer.wait(met, "a status that fits")
        return found[-1].message

    return until


def ok(status):
    return status.level == DiagnosticStatus.OK


def refused(text):
    return lambda status: status.level == DiagnosticStatus.ERROR and text in status.message


def with_frame(info, frame):
    info.header.frame_id = frame
    return info


def subscribed(peer, namespace, kind):
    """The topics of a message type that the node subscribes to."""
    if ("relocalize", namespace) not in peer.get_node_names_and_namespaces():
        return []
    found = peer.get_subscriber_names_and_types_by_node("relocalize", namespace)
    return [name for name, kinds in found if f"sensor_msgs/msg/{kind.__name__}" in kinds]


@pytest.mark.parametrize(
    ("rules", "transport", "images", "info"),
    [
        ({}, "raw", "/image", "/camera_info"),
        ({"image": "/front/image_raw"}, "raw", "/front/image_raw", "/front/camera_info"),
        (
            {"image": "/front/image_raw"},
            "compressed",
            "/front/image_raw/compressed",
            "/front/camera_info",
        ),
        (
            {"image/compressed": "/rear/jpeg"},
            "compressed",
            "/rear/jpeg",
            "/rear/camera_info",
        ),
        (
            {"image": "/front/image_raw", "camera_info": "/calibration/front"},
            "raw",
            "/front/image_raw",
            "/calibration/front",
        ),
        (
            {"__ns": "/robot1", "image": "camera/image_raw"},
            "raw",
            "/robot1/camera/image_raw",
            "/robot1/camera/camera_info",
        ),
    ],
)
def test_camera_info_is_beside_the_images_unless_given(peer, start, rules, transport, images, info):
    namespace = rules.get("__ns", "/")
    start(image_transport=transport, remap=rules)
    kind = Image if transport == "raw" else CompressedImage
    expected = [[images], [info]]
    peer.wait(
        lambda: [subscribed(peer, namespace, k) for k in (kind, CameraInfo)] == expected,
        f"subscriptions to {expected}",
    )


def test_camera_info_of_another_frame_is_refused(peer, start, sender):
    start()
    other = with_frame(camera_info(128, 96, 100.0), "rear_optical")
    text = sender(other, refused("the image is of the frame camera_optical"))
    assert "but /camera_info is of rear_optical, another camera: remap camera_info" in text
    peer.wait_for_count("rejected_camera")
    sender(with_frame(camera_info(128, 96, 100.0), "/camera_optical"), ok)


def test_camera_frame_lets_the_frames_of_one_camera_differ(peer, start, sender):
    start(camera_frame="camera_optical")
    peer.localize(0)
    sender(with_frame(camera_info(128, 96, 100.0), "rear_optical"), ok)
    expected = "checked with /camera_info"
    peer.wait(lambda: peer.figures().get("camera_info") == expected, expected)


def test_a_region_of_interest_is_reckoned_with(peer, start, sender):
    node = start()
    info = camera_info(256, 192, 150.0)
    info.roi.x_offset, info.roi.y_offset, info.roi.width, info.roi.height = 20, 10, 220, 160
    sender(info, refused("128x96 pixels, but camera_info says 220x160: a region"))
    sender(info, ok, width=220, height=160)
    node.wait_for_log(r"live camera 220x160 fx 150.0 fy 150.0 cx 108.0 cy 86.0")
    sender(info, refused("440x320 pixels, but camera_info says 220x160"), width=440, height=320)
    info.roi.width = 240
    sender(info, refused("camera_info has the region 240x160+20+10"), width=220, height=160)
    assert "Traceback" not in node.log


def test_a_binned_camera_of_the_same_view_needs_nothing(peer, start, sender):
    node = start()
    info = camera_info(512, 384, 400.0)
    info.binning_x = info.binning_y = 4
    sender(info, ok)
    peer.wait(lambda: "checked" in peer.figures().get("camera_info", ""), "the camera_info")
    assert "differs from the bundle's" not in node.log


def test_a_lens_that_is_not_known_is_one_line_and_a_warning(peer, start, sender):
    node = start()
    peer.localize(0)
    peer.wait_for_diagnosis("")
    assert (
        peer.figures()["camera_info"] == "no camera_info on /camera_info: the lens is not checked"
    )
    info = camera_info(128, 96, 100.0)
    info.distortion_model, info.d = "thin_prism", [0.1] * 12
    sender(info, ok)
    found = peer.wait_for_diagnosis("the lens is not checked")
    assert found.level in (DiagnosticStatus.WARN, DiagnosticStatus.ERROR)
    node.wait_for_log(
        r"WARN.*/camera_info: camera_info cannot be used: .*the lens is not checked\n"
    )
    info.distortion_model, info.d = "rational_polynomial", [0.0] * 14
    sender(info, ok)
    peer.wait_for_diagnosis("^(?!.*lens)")


def test_raw_calibration_of_a_rectified_topic_is_a_warning(peer, start):
    node = start(image_transport="raw", remap={"image": "/front/image_rect"})
    infos = peer.create_publisher(CameraInfo, "/front/camera_info", RELIABLE)
    info = camera_info(128, 96, 100.0)
    info.p = [90.0, 0.0, 64.0, 0.0, 0.0, 90.0, 48.0, 0.0, 0.0, 0.0, 1.0, 0.0]
    peer.wait_for_listener(infos)
    node.wait_for_log(
        "WARN.*/front/image_rect is rectified by its name, .*set rectified_images to true",
        lambda: (infos.publish(info), peer.spin(0.2)),
    )
    peer.wait_for_diagnosis("rectified by its name")


def test_the_projection_is_used_for_rectified_images(peer, start):
    node = start(image_transport="raw", rectified_images=True)
    info = camera_info(128, 96, 400.0)  # alone it would see less than the bundle's camera
    info.distortion_model, info.d = "plumb_bob", [-0.3, 0.1, 0.0, 0.0, 0.0]
    info.p = [90.0, 0.0, 64.0, 0.0, 0.0, 90.0, 48.0, 0.0, 0.0, 0.0, 1.0, 0.0]
    stamps = itertools.count(1)

    def send():
        peer.info.publish(info)
        image = raw_image(flat_image(*COLOUR), next(stamps))
        peer.outcome(image, peer.image)

    node.wait_for_log("live camera 128x96 fx 90.0 .* none", send)
    assert "cannot be reconciled" not in node.log
