"""Folders of posed images that `rgsiam dataset from-bag` writes."""

import os
import shutil
import signal
import subprocess
import sys
import time

import cv2
import numpy as np
import pytest
import yaml
from support.bags import IMAGES, TYPES, copy_bag, cut_bag, edit_messages, with_raw_images
from support.command_line import rgsiam
from support.paths import TOWN_DRIVE, TOWN_MAP
from support.poses import random_poses

from rgsiam_ros.bundle import Bundle
from rgsiam_ros.errors import DatasetError
from rgsiam_ros.geometry.conversions import quaternion_xyzw_of, stamp_to_ns
from rgsiam_ros.geometry.geodesy import Datum, LocalFrame
from rgsiam_ros.geometry.poses import angles_between, pose_errors
from rgsiam_ros.recordings.base import fingerprint, poses_of
from rgsiam_ros.recordings.folder_writer import FolderOptions, spread_out, write_folder
from rgsiam_ros.recordings.formats import open_dataset
from rgsiam_ros.recordings.pose_sources import FixTopics
from rgsiam_ros.recordings.rosbag import read_drive, read_messages
from rgsiam_ros.recordings.topics import BagTopics

INFO = "/camera/camera_info"
TRUTH = BagTopics.truth


@pytest.fixture(scope="module")
def bag(tmp_path_factory):
    return cut_bag(TOWN_MAP, tmp_path_factory.mktemp("bag") / "short", images=16)


@pytest.fixture(scope="module")
def other(tmp_path_factory):
    return cut_bag(TOWN_DRIVE, tmp_path_factory.mktemp("other") / "other", images=6)


def test_a_folder_holds_what_the_bag_holds(bag, tmp_path):
    """The poses bit for bit, the images byte for byte, under the same names."""
    write_folder([bag], tmp_path / "out", FolderOptions())
    recorded, written = open_dataset(bag), open_dataset(tmp_path / "out")
    assert [frame.name for frame in written.frames] == [frame.name for frame in recorded.frames]
    np.testing.assert_array_equal(poses_of(written.frames), poses_of(recorded.frames))
    for a, b in zip(written.read_images(), recorded.read_images(), strict=True):
        assert a.content == b.content
    assert (written.camera, written.map_frame) == (recorded.camera, recorded.map_frame)
    assert fingerprint([written]) == fingerprint([recorded])


@pytest.mark.slow
def test_a_map_of_the_folder_is_the_map_of_the_bag(bag, tmp_path):
    write_folder([bag], tmp_path / "out", FolderOptions())
    for source, name in ((bag, "a"), (tmp_path / "out", "b")):
        options = ("--out", tmp_path / name, "--feature-width", 256)
        done = rgsiam("map", "build", source, *options)
        assert done.returncode == 0, done.stderr
    a, b = (Bundle.load(tmp_path / name) for name in "ab")
    assert a.contents.keys() == b.contents.keys()
    for name in a.contents:
        assert a.content(name) == b.content(name), name
    assert a.manifest.mapping_data.sessions == b.manifest.mapping_data.sessions


@pytest.mark.slow
def test_bags_are_read_side_by_side_and_frames_thinned(bag, other, tmp_path):
    out = tmp_path / "out"
    options = ("--spacing", "2.5", "--workers", "2")
    done = rgsiam("dataset", "from-bag", bag, other, "--out", out, *options)
    assert done.returncode == 0, done.stderr
    assert "short: 6 images; left out: 10 near another one, 0 without" in done.stdout
    dataset = open_dataset(out)
    assert {frame.session for frame in dataset.frames} == {"short", "other"}
    positions = poses_of([f for f in dataset.frames if f.session == "short"])[:, :3, 3]
    assert (np.linalg.norm(np.diff(positions, axis=0), axis=1) >= 2.5).all()


def test_a_turn_keeps_a_frame_too():
    T = random_poses(40)
    kept = spread_out(T, 1e9, 90.0)
    chosen = T[kept]
    assert 1 < kept.sum() < 40
    assert (np.degrees(angles_between(chosen[1:, :3, :3], chosen[:-1, :3, :3])) >= 90.0).all()
    assert spread_out(T, 0.0, 0.0).all()


def test_raw_images_are_kept_without_loss(tmp_path):
    raw = with_raw_images(TOWN_MAP, tmp_path / "raw", images=3, scale=2)
    write_folder([raw], tmp_path / "out", FolderOptions())
    written = open_dataset(tmp_path / "out")
    for a, b in zip(written.read_images(), open_dataset(raw).read_images(), strict=True):
        np.testing.assert_array_equal(a.decode(), b.decode())


def test_raw_images_of_16_bits_keep_their_bits(tmp_path):
    values = np.arange(90 * 160, dtype=np.uint16).reshape(90, 160) * 4

    def to_mono(connection, index, raw):
        message = TYPES.deserialize_cdr(raw, connection.msgtype)
        if connection.topic != IMAGES:
            return raw
        kind = "sensor_msgs/msg/Image"
        image = TYPES.types[kind](
            header=message.header, height=90, width=160, encoding="mono16", is_bigendian=0,
            step=320, data=values.view(np.uint8).ravel(),
        )  # fmt: skip
        return bytes(TYPES.serialize_cdr(image, kind))

    types = {IMAGES: "sensor_msgs/msg/Image"}
    raw = copy_bag(TOWN_MAP, tmp_path / "raw", lambda _, i: i < 2, to_mono, types=types)
    write_folder([raw], tmp_path / "out", FolderOptions())
    a, b = (next(iter(open_dataset(path).read_images())) for path in (tmp_path / "out", raw))
    stored = cv2.imdecode(np.frombuffer(a.content, np.uint8), cv2.IMREAD_UNCHANGED)
    np.testing.assert_array_equal(stored, values)
    levels = (1000, 20000)
    np.testing.assert_array_equal(a.decode(levels=levels), b.decode(levels=levels))


def distorted(index, message):
    message.distortion_model = "plumb_bob"
    message.d = np.array([-0.3, 0.1, 0.0, 0.0, 0.0])


def test_the_lens_distortion_is_removed_and_recorded(bag, tmp_path):
    bent = edit_messages(bag, tmp_path / "bent", INFO, distorted)
    write_folder([bent], tmp_path / "out", FolderOptions(undistort=True))
    written, recorded = open_dataset(tmp_path / "out"), open_dataset(bent)
    assert written.camera.distortion_model == "none"
    stated = yaml.safe_load((tmp_path / "out" / "dataset.yaml").read_text())
    assert stated["undistorted_from"] == recorded.camera.model_dump(mode="json")
    image = next(iter(recorded.read_images())).decode()
    straight = cv2.undistort(image, recorded.camera.K, np.array(recorded.camera.distortion))
    found = next(iter(written.read_images())).decode().astype(int)
    assert np.abs(found - straight).mean() < 1.0  # the whole image is moved by up to 30 pixels
    assert np.abs(found - image).mean() > 5.0


def with_tf(source, target, slow_every):
    """The true poses of a bag as /tf: map -> odom, which moves a little, now and then, and odom -> base_link."""
    drive = read_drive(source)
    kind = "tf2_msgs/msg/TFMessage"
    _, truth = read_messages(source, TRUTH, "truth")

    def add(writer):
        made = writer.add_connection("/tf", kind, typestore=TYPES)
        for i, message in enumerate(truth):
            T_map_odom = np.eye(4)
            T_map_odom[0, 3] = 0.01 * i
            T = np.linalg.inv(T_map_odom) @ drive.truth_T_map_base_N44[i]
            items = [transform(message.header, "odom", "base_link", T)]
            if i % slow_every == 0:
                items.append(transform(message.header, "map", "odom", T_map_odom))
            tf = TYPES.types[kind](transforms=items)
            writer.write(made, stamp_to_ns(message.header.stamp), TYPES.serialize_cdr(tf, kind))

    return copy_bag(source, target, lambda topic, _: topic != TRUTH, at_end=add)


def transform(header, parent, child, T):
    types = TYPES.types
    t = types["geometry_msgs/msg/Vector3"](*T[:3, 3].tolist())
    q = types["geometry_msgs/msg/Quaternion"](*quaternion_xyzw_of(T).tolist())
    made = types["std_msgs/msg/Header"](stamp=header.stamp, frame_id=parent)
    body = types["geometry_msgs/msg/Transform"](translation=t, rotation=q)
    return types["geometry_msgs/msg/TransformStamped"](made, child, body)


@pytest.mark.slow
def test_poses_come_from_transforms_between_two_frames(bag, tmp_path):
    moving = with_tf(bag, tmp_path / "tf", slow_every=3)
    done = rgsiam("dataset", "from-bag", moving, "--out", tmp_path / "out", "--tf", "map")
    assert done.returncode == 0, done.stderr
    written, recorded = open_dataset(tmp_path / "out"), open_dataset(bag)
    assert len(written.frames) == 16  # the last slow transform is that of the last image
    T = poses_of(written.frames)
    metres, radians = pose_errors(T, poses_of(recorded.frames)[: len(T)])
    assert metres.max() < 1e-9
    assert radians.max() < 1e-7
    done = rgsiam("dataset", "from-bag", moving, "--out", tmp_path / "x", "--tf", "world")
    assert done.returncode == 1
    assert "no chain of transforms joins world and base_link" in done.stderr
    assert "--tf" in done.stderr


def with_fixes(source, target, datum):
    """The true poses of a bag as fixes of an antenna and orientations of an IMU that is turned on the vehicle."""
    drive = read_drive(source)
    _, truth = read_messages(source, TRUTH, "truth")
    types, frame = TYPES.types, LocalFrame(datum)
    antenna_m = np.array([0.4, 0.1, 1.5])
    T_base_imu = np.eye(4)
    T_base_imu[:2, :2] = [[0.0, -1.0], [1.0, 0.0]]
    T_base_antenna = np.eye(4)
    T_base_antenna[:3, 3] = antenna_m

    def add(writer):
        fix, imu = (
            writer.add_connection(topic, kind, typestore=TYPES)
            for topic, kind in (
                ("/gps/fix", "sensor_msgs/msg/NavSatFix"),
                ("/imu/data", "sensor_msgs/msg/Imu"),
            )
        )
        for i, message in enumerate(truth):
            T = drive.truth_T_map_base_N44[i]
            at = stamp_to_ns(message.header.stamp)
            latitude, longitude, height = frame.to_geodetic(T[:3, :3] @ antenna_m + T[:3, 3])
            good = types["sensor_msgs/msg/NavSatStatus"](status=-1 if i == 5 else 0, service=1)
            made = types["std_msgs/msg/Header"](stamp=message.header.stamp, frame_id="gps")
            position = types["sensor_msgs/msg/NavSatFix"](
                made, good, float(latitude), float(longitude), float(height), np.zeros(9), 0
            )
            writer.write(fix, at, TYPES.serialize_cdr(position, "sensor_msgs/msg/NavSatFix"))
            q = types["geometry_msgs/msg/Quaternion"](*quaternion_xyzw_of(T @ T_base_imu).tolist())
            zero = types["geometry_msgs/msg/Vector3"](0.0, 0.0, 0.0)
            made = types["std_msgs/msg/Header"](stamp=message.header.stamp, frame_id="imu")
            turned = types["sensor_msgs/msg/Imu"](
                made, q, np.zeros(9), zero, np.zeros(9), zero, np.zeros(9)
            )
            writer.write(imu, at, TYPES.serialize_cdr(turned, "sensor_msgs/msg/Imu"))

    def mounted(connection, index, raw):
        if connection.topic != "/tf_static":
            return raw
        message = TYPES.deserialize_cdr(raw, connection.msgtype)
        for frame, T in (("gps", T_base_antenna), ("imu", T_base_imu)):
            message.transforms.append(transform(truth[0].header, "base_link", frame, T))
        return bytes(TYPES.serialize_cdr(message, connection.msgtype))

    return copy_bag(source, target, lambda topic, _: topic != TRUTH, mounted, add)


@pytest.mark.slow
def test_poses_come_from_fixes_and_headings(bag, tmp_path):
    datum = Datum(latitude_deg=48.0, longitude_deg=11.5, ellipsoidal_height_m=520.0)
    fixed = with_fixes(bag, tmp_path / "gps", datum)
    options = FolderOptions(fixes=FixTopics("/imu/data", datum=datum))
    write_folder([fixed], tmp_path / "out", options)
    written, recorded = open_dataset(tmp_path / "out"), open_dataset(bag)
    metres, radians = pose_errors(poses_of(written.frames), poses_of(recorded.frames))
    assert np.sort(metres)[-2] < 1e-5
    assert metres[5] < 0.05  # there was no fix
    assert radians.max() < 1e-2
    done = rgsiam(
        "dataset", "from-bag", fixed, "--out", tmp_path / "b", "--heading-topic", "/imu/data"
    )
    assert done.returncode == 0, done.stderr
    stated = yaml.safe_load((tmp_path / "b" / "dataset.yaml").read_text())
    assert abs(stated["datum"]["latitude_deg"] - 48.0) < 0.01


@pytest.mark.slow
def test_an_interrupted_folder_is_gone_on_with(bag, other, tmp_path):
    """What is whole is not written again; a half folder is no dataset."""
    out = tmp_path / "out"
    write_folder([bag, other], out, FolderOptions())
    (out / "dataset.yaml").unlink()
    (out / "other" / "session.yaml").rename(out / "other" / "unfinished.yaml")
    images = sorted((out / "other" / "images").iterdir())
    images[2].unlink()
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*.jpg")}
    with pytest.raises(DatasetError, match="no known dataset format"):
        open_dataset(out)
    write_folder([bag, other], out, FolderOptions())
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert images[2].exists()
    assert len(open_dataset(out).frames) == 22
    with pytest.raises(DatasetError, match=r"with other options \(spacing_m differ\)"):
        write_folder([bag, other], out, FolderOptions(spacing_m=3.0))


@pytest.mark.slow
def test_a_killed_run_leaves_a_folder_that_goes_on(tmp_path):
    out = tmp_path / "out"
    command = ("dataset", "from-bag", TOWN_MAP, "--out", out)
    process = subprocess.Popen(
        [sys.executable, "-m", "rgsiam_ros.cli.main", *map(str, command)], stdout=subprocess.DEVNULL
    )
    images = out / "town_map" / "images"
    while not (images.is_dir() and len(list(images.glob("*.jpg"))) > 20):
        assert process.poll() is None
        time.sleep(0.005)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    done = rgsiam(*command)
    assert done.returncode == 0, done.stderr
    assert fingerprint([open_dataset(out)]) == fingerprint([open_dataset(TOWN_MAP)])


def test_what_does_not_fit_is_refused(bag, other, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "a.txt").write_text("mine")
    with pytest.raises(DatasetError, match="exists and is not empty"):
        write_folder([bag], tmp_path / "mine", FolderOptions())
    twin = tmp_path / "twin" / "short"
    shutil.copytree(other, twin)
    with pytest.raises(DatasetError, match="two of the bags have the same name"):
        write_folder([bag, twin], tmp_path / "out", FolderOptions())
    write_folder([bag], tmp_path / "out", FolderOptions())
    table = tmp_path / "out" / "short" / "frames.csv"
    lines = table.read_text().splitlines()
    bad = [
        lines[0],
        lines[1].replace(".jpg", ".jpg,1"),
        lines[2].replace(",", ",../", 1),
        *lines[3:],
    ]
    table.write_text("\n".join(bad) + "\n")
    dataset = open_dataset(tmp_path / "out")
    assert [d.where for d in dataset.dropped] == [f"{table}:2", f"{table}:3"]
    assert "15 fields, not 14" in dataset.dropped[0].why
    assert "is no name of a file" in dataset.dropped[1].why
    table.write_text("\n".join(["a,b", *lines[1:]]))
    with pytest.raises(DatasetError, match=r"frames.csv:1: the header is not stamp_ns,image,r00"):
        open_dataset(tmp_path / "out")
    described = tmp_path / "out" / "dataset.yaml"
    described.write_text(described.read_text().replace("version: 1", "version: 2"))
    with pytest.raises(DatasetError, match="is not a description of version 1"):
        open_dataset(tmp_path / "out")
