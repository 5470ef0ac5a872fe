"""What `import rgsiam_ros` offers, and the example that shows it."""

import subprocess
import sys

import cv2
import numpy as np
import pytest
from support.paths import ROOT, TOWN_BUNDLE, TOWN_DRIVE

import rgsiam_ros
from rgsiam_ros.recordings.rosbag import read_drive

NAMES = ["Bundle", "Camera", "EngineOptions", "PoseEstimate", "Relocalizer", "RgsiamError"]


def test_the_front_door_offers_its_names():
    assert rgsiam_ros.__all__ == NAMES
    assert set(NAMES) <= set(dir(rgsiam_ros))
    for name in NAMES:
        assert getattr(rgsiam_ros, name).__name__ == name
    with pytest.raises(AttributeError, match="no attribute 'Relocaliser'"):
        _ = rgsiam_ros.Relocaliser


def test_importing_the_package_imports_nothing_else():
    code = "import sys, rgsiam_ros; print([m for m in sys.modules if m.startswith('rgsiam_ros.')], 'numpy' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[] False"


@pytest.mark.slow
def test_the_example_localizes_an_image_of_the_town(tmp_path):
    drive = read_drive(TOWN_DRIVE)
    image = next(iter(drive.read_images()))
    cv2.imwrite(str(tmp_path / "image.png"), image.decode())
    command = [sys.executable, str(ROOT / "examples" / "localize_image.py"), str(TOWN_BUNDLE)]
    done = subprocess.run(
        [*command, str(tmp_path / "image.png")],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    answer, *rows = done.stdout.splitlines()
    assert answer == "localized"
    T = np.array([[float(value) for value in row.strip(" []").split()] for row in rows])
    true = drive.true_base_poses([image.stamp_ns])[0][0] @ drive.T_base_camera
    assert np.linalg.norm(T[:3, 3] - true[:3, 3]) < 3.0


def test_the_example_is_ten_lines():
    text = (ROOT / "examples" / "localize_image.py").read_text()
    assert len([line for line in text.splitlines() if line.strip()]) <= 10
