"""Maps from 16-bit images: the map and the vehicle scale them alike."""

from dataclasses import dataclass

import cv2
import numpy as np
import pytest
import yaml
from rich.console import Console
from support.small_map import WIDTH, part_of_town

from rgsiam_ros.camera.decoding import decode_compressed
from rgsiam_ros.engines.options import EngineOptions
from rgsiam_ros.geometry.poses import quaternion_wxyz
from rgsiam_ros.localization.relocalizer import Relocalizer
from rgsiam_ros.mapping.build import MapOptions, build_bundle
from rgsiam_ros.mapping.show import localize_frame
from rgsiam_ros.recordings.levels import levels_of
from rgsiam_ros.recordings.subset import Subset


@dataclass(frozen=True)
class Thermal:
    """The image of another camera as a 14-bit camera would give it: 1000 of 65536 levels."""

    content: bytes

    def decode(self, enough=None, levels=None):
        return decode_compressed(self.content, enough=enough, levels=levels)


class ThermalPart(Subset):
    """A dataset with `Thermal` images."""

    def read_images(self):
        for image in super().read_images():
            grey = cv2.cvtColor(image.decode(), cv2.COLOR_BGR2GRAY)
            wide = np.rint(7300.0 + grey * (1000.0 / 255.0)).astype(np.uint16)
            yield Thermal(cv2.imencode(".png", wide)[1].tobytes())


def thermal_town():
    part = part_of_town()
    return ThermalPart(part, range(len(part.frames)))


def test_datasets_of_8_bits_have_no_levels():
    assert levels_of([part_of_town()]) is None


@pytest.mark.slow
def test_a_map_of_16_bit_images_states_its_levels(tmp_path):
    town = thermal_town()
    bundle = build_bundle([town], tmp_path / "thermal", MapOptions(feature_width=WIDTH))
    low, high = bundle.manifest.geometric_part.preprocessing.levels
    assert 6500 < low < 7700
    assert 7900 < high < 9100
    relocalizer = Relocalizer.from_bundle(bundle.path, EngineOptions(threads=1), frozen_images=0)
    relocalizer.use_camera(town.camera)
    image = next(iter(town.read_images()))
    assert relocalizer.levels == (low, high)
    estimate = relocalizer.estimate(image.decode(levels=relocalizer.levels))
    assert not estimate.lost
    error_m = np.linalg.norm(estimate.T_map_camera[:3, 3] - town.frames[0].T_map_camera[:3, 3])
    assert error_m < 0.5
    relocalizer.close()
    assert not localize_frame(bundle, town, 0).estimate.lost
    path = write_thermal_csv(tmp_path / "drive", town, 3)
    evaluate = pytest.importorskip("rgsiam_training.evaluation.evaluate")
    console = Console(quiet=True)
    metrics = evaluate.evaluate_dataset(path, bundle.path, tmp_path / "out", console, split="test")
    assert metrics["answered"] == 3


def write_thermal_csv(folder, dataset, count):
    """A CSV dataset with the first images of another one."""
    folder.mkdir()
    camera = dataset.camera.model_dump(mode="json")
    (folder / "camera.yaml").write_text(yaml.safe_dump(camera))
    lines = ["image,x,y,z,qw,qx,qy,qz"]
    for i, image in zip(range(count), dataset.read_images(), strict=False):
        (folder / f"{i}.png").write_bytes(image.content)
        T = dataset.frames[i].T_map_camera
        values = [*T[:3, 3], *quaternion_wxyz(T)]
        lines.append(",".join([f"{i}.png", *map(str, values)]))
    path = folder / "poses.csv"
    path.write_text("\n".join(lines) + "\n")
    return path
