"""Bags as users bring them: bad poses, images out of order, topics that are missing or oddly named."""

import numpy as np
import pytest
from support.bags import IMAGES, TYPES, copy_bag, cut_bag, edit_messages
from support.log_messages import log_messages
from support.paths import TOWN_MAP

from rgsiam_ros.errors import BagError, DatasetError
from rgsiam_ros.geometry.conversions import stamp_to_ns
from rgsiam_ros.recordings.base import common_camera, describe_dropped, describe_repeated
from rgsiam_ros.recordings.formats import open_dataset
from rgsiam_ros.recordings.rosbag import read_drive
from rgsiam_ros.recordings.topics import BagTopics

TRUTH = BagTopics.truth
INFO = "/camera/camera_info"


@pytest.fixture(scope="module")
def bag(tmp_path_factory):
    return cut_bag(TOWN_MAP, tmp_path_factory.mktemp("bag") / "drive", images=12)


def set_stamp(message, stamp_ns):
    message.header.stamp.sec, message.header.stamp.nanosec = divmod(stamp_ns, 10**9)


def brightness(dataset):
    return [image.decode().mean() for image in dataset.read_images()]


def rename(bag, target, names):
    """Copy a bag with other names of topics."""

    def add(writer):
        for new, kind, messages in copied.values():
            made = writer.add_connection(new, kind, typestore=TYPES)
            for at, raw in messages:
                writer.write(made, at, raw)

    copied = {}

    def collect(connection, index, raw):
        entry = copied.setdefault(
            connection.topic,
            (names.get(connection.topic, connection.topic), connection.msgtype, []),
        )
        entry[2].append((index, raw))
        return raw

    copy_bag(bag, target.with_name("all"), lambda *_: True, collect)
    return copy_bag(bag, target, lambda *_: False, at_end=add)


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda q: dict.fromkeys("xyzw", 0.0), "quaternion of norm 0, not 1"),
        (lambda q: {"x": np.nan}, "non-finite quaternion"),
        (
            lambda q: {axis: 1.2 * getattr(q, axis) for axis in "xyzw"},
            "quaternion of norm 1.2, not 1",
        ),
    ],
)
def test_a_bad_pose_in_a_bag_is_left_out_and_named(bag, tmp_path, change, why):
    def spoil(index, message):
        if index == 4:
            for axis, value in change(message.pose.pose.orientation).items():
                setattr(message.pose.pose.orientation, axis, value)

    dataset = open_dataset(edit_messages(bag, tmp_path / "bad", TRUTH, spoil))
    whole = open_dataset(bag)
    assert len(dataset.frames) == 12  # poses are interpolated between the neighbours
    (dropped,) = dataset.dropped
    assert dropped.why == why
    assert f"{TRUTH} at " in dropped.where
    assert "1 unusable labels, no frame left out" in describe_dropped(dataset)
    np.testing.assert_allclose(dataset.frames[8].T_map_camera, whole.frames[8].T_map_camera)


def test_a_quaternion_that_is_a_little_too_long_is_normalised(bag, tmp_path):
    def lengthen(index, message):
        for axis in "xyzw":
            q = message.pose.pose.orientation
            setattr(q, axis, 1.005 * getattr(q, axis))

    dataset = open_dataset(edit_messages(bag, tmp_path / "long", TRUTH, lengthen))
    assert not dataset.dropped
    expected = open_dataset(bag).frames[5].T_map_camera
    np.testing.assert_allclose(dataset.frames[5].T_map_camera, expected, atol=1e-9)


def test_images_are_in_the_order_of_their_stamps(bag, tmp_path):
    stamps = read_drive(bag).image_stamps_ns.tolist()
    order = [1, 0, 2, 3, 7, 4, 5, 6, 8, 9, 11, 10]
    raw = {}

    def shuffle(connection, index, message):
        if connection.topic == IMAGES:
            raw[index] = message
        return message

    copy_bag(bag, tmp_path / "read", lambda *_: True, shuffle)
    shuffled = copy_bag(
        bag,
        tmp_path / "shuffled",
        lambda *_: True,
        lambda c, i, message: raw[order[i]] if c.topic == IMAGES else message,
    )
    dataset = open_dataset(shuffled)
    assert [frame.stamp_ns for frame in dataset.frames] == stamps
    assert brightness(dataset) == brightness(open_dataset(bag))
    assert [image.stamp_ns for image in read_drive(shuffled).read_images()] == stamps


def test_an_image_that_is_recorded_twice_is_used_once(bag, tmp_path):
    raw = {}

    def double(connection, index, message):
        if connection.topic != IMAGES:
            return message
        raw[index] = message
        return raw[index - 1] if index in (3, 9) else message

    dataset = open_dataset(copy_bag(bag, tmp_path / "doubled", lambda *_: True, double))
    assert len(dataset.frames) == len(list(dataset.read_images())) == 10
    assert [d.why for d in dataset.dropped] == ["2 images with the stamp of an earlier one"]
    assert "2 of 12 frames left out" in describe_dropped(dataset)


def test_a_frozen_camera_is_reported(bag, tmp_path):
    first = []

    def freeze(index, message):
        first.append(message.data)
        if index in (5, 6):
            message.data = first[4]

    dataset = open_dataset(edit_messages(bag, tmp_path / "frozen", IMAGES, freeze))
    assert "3 of 12 images repeat another one byte for byte" in describe_repeated(dataset)
    assert describe_repeated(open_dataset(bag)) is None


def every_nth(n):
    return lambda topic, index: topic != TRUTH or index % n == 0


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (
            lambda b, t: copy_bag(b, t, lambda topic, i: topic != TRUTH or i < 1),
            f"has 1 messages on {TRUTH}",
        ),
        (
            lambda b, t: edit_messages(b, t, TRUTH, lambda i, m: set_stamp(m, 0)),
            rf"messages on {TRUTH}, all with the stamp 0.0+ s: publish them with the time",
        ),
        (
            lambda b, t: edit_messages(
                b, t, TRUTH, lambda i, m: setattr(m.pose.pose.position, "x", np.nan)
            ),
            r"0 usable poses in \d+ messages .*non-finite position",
        ),
        (
            lambda b, t: edit_messages(b, t, IMAGES, lambda i, m: set_stamp(m, 0)),
            "the stamps of all images are zero: let the camera driver stamp them",
        ),
        (
            lambda b, t: edit_messages(b, t, IMAGES, lambda i, m: set_stamp(m, 5 * 10**9 + i)),
            r"the images are of 5\.0+ to 5\.0+11 s, the poses of .*: check the clocks",
        ),
    ],
    ids=["one pose", "truth without stamps", "no pose usable", "images without stamps", "clocks"],
)
def test_the_reason_given_is_the_true_one(bag, tmp_path, make, reason):
    with pytest.raises((BagError, DatasetError), match=reason):
        open_dataset(make(bag, tmp_path / "made"))


def test_truth_at_a_low_rate_is_named(tmp_path):
    def slow_down(index, message):
        set_stamp(message, stamp_to_ns(message.header.stamp) + index * 2 * 10**9)

    short = cut_bag(TOWN_MAP, tmp_path / "short", images=12)
    slow = edit_messages(short, tmp_path / "slow", TRUTH, slow_down)

    def late(index, message):
        set_stamp(message, stamp_to_ns(message.header.stamp) + 45 * 10**7)

    with pytest.raises(
        DatasetError, match=r"the poses on .* are 2\.\d s apart \(median\).*higher rate"
    ):
        open_dataset(edit_messages(slow, tmp_path / "made", IMAGES, late))


def test_all_that_is_missing_is_named_at_once(bag, tmp_path):
    names = {TRUTH: "/my/odometry", INFO: "/my/info"}
    with pytest.raises(BagError) as error:
        open_dataset(rename(bag, tmp_path / "renamed", names))
    text = str(error.value)
    assert "\n" not in text
    for part in ("/my/odometry", "--truth-topic", "/my/info", "--camera-info-topic"):
        assert part in text
    topics = BagTopics(image="/nowhere", truth="/none")
    with pytest.raises(
        BagError, match=r"no topic /nowhere.*--image-topic.*no topic /none.*--truth-topic"
    ):
        open_dataset(bag, topics=topics)
    found = BagTopics(truth="/my/odometry", camera_info="/my/info")
    assert len(open_dataset(tmp_path / "renamed", topics=found).frames) > 0


def test_a_truth_topic_of_another_type_is_named(bag):
    with pytest.raises(
        BagError, match=rf"has {INFO} with type .*CameraInfo, which cannot be the truth"
    ):
        open_dataset(bag, topics=BagTopics(truth=INFO))


def test_depth_in_the_name_of_a_colour_topic_does_not_matter(bag, tmp_path):
    names = {
        IMAGES: "/depth_camera/color/image_raw/compressed",
        INFO: "/depth_camera/color/camera_info",
    }
    renamed = rename(bag, tmp_path / "renamed", names)
    assert read_drive(renamed).image_topic == names[IMAGES]


def test_true_poses_of_the_camera_itself(bag, tmp_path):
    """The mount is missing; the message offers --mount identity, which then works."""

    def of_camera(index, message):
        message.child_frame_id = "optical"

    without = copy_bag(bag, tmp_path / "without", lambda topic, i: topic != "/tf_static")
    camera = edit_messages(without, tmp_path / "camera", TRUTH, of_camera)
    with pytest.raises(
        BagError, match=r"no chain from optical to .*--base-frame.*--mount identity"
    ):
        open_dataset(camera)
    dataset = open_dataset(camera, topics=BagTopics(mount="identity"))
    truth = read_drive(camera).truth_T_map_base_N44
    np.testing.assert_allclose(dataset.frames[2].T_map_camera, truth[2], atol=1e-6)


@pytest.mark.parametrize(("given", "taken"), [("/map", "map"), ("", "map"), ("/odom", "odom")])
def test_the_map_frame_of_a_bag_is_cleaned(bag, tmp_path, given, taken):
    def name(index, message):
        message.header.frame_id = given

    renamed = edit_messages(bag, tmp_path / "renamed", TRUTH, name)
    with log_messages("rgsiam_ros.recordings.rosbag") as messages:
        assert open_dataset(renamed).map_frame == taken
    assert [("name no frame" in message) for message in messages] == ([] if given else [True])


def test_a_map_frame_that_no_bundle_can_have_is_named_at_once(bag, tmp_path):
    def name(index, message):
        message.header.frame_id = "my map"

    dataset = open_dataset(edit_messages(bag, tmp_path / "renamed", TRUTH, name))
    with pytest.raises(DatasetError, match=r"renamed: 'my map' cannot be the name of a map frame"):
        common_camera([dataset])
