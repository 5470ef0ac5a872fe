import cv2
import numpy as np
import pytest
from support.paths import TOWN_MAP

torch = pytest.importorskip("torch", reason="the training extra is not installed here")

from rgsiam_ros.camera.preprocessing import fit_image
from rgsiam_ros.errors import RgsiamError
from rgsiam_ros.features.network import feature_preprocessing
from rgsiam_ros.mapping.labels import read_labels
from rgsiam_ros.recordings.formats import open_dataset
from rgsiam_ros.recordings.subset import Subset
from rgsiam_training.features.crops import draw_pair, inside, stacked, transformed
from rgsiam_training.features.finetune import finetune
from rgsiam_training.features.network import load_shipped
from rgsiam_training.features.scenes import Scene, tuning_parts

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def start():
    return load_shipped().requires_grad_(False)


@pytest.fixture(scope="module")
def scene(start):
    return Scene(Subset(open_dataset(TOWN_MAP, "train"), range(100, 124)), start)


def pairs(scene, count, seed=0):
    random, light = np.random.default_rng(seed), torch.Generator().manual_seed(seed)
    return [draw_pair(scene, random, light) for _ in range(count)]


def descriptors(network, image_HW, pixel_M2):
    """Unit descriptors at pixels, from the nearest cells."""
    with torch.no_grad():
        cells = network(stacked([image_HW]))[0][0].numpy()
    column, row = np.clip(pixel_M2 // 8, 0, np.array(cells.shape[:0:-1]) - 1).astype(int).T
    values = cells[:, row, column].T
    return values / np.linalg.norm(values, axis=1, keepdims=True)


def weights(network):
    return network.state_dict()["block3.0.layer.0.weight"]


def test_both_crops_of_one_image_show_the_same_at_the_same_points(scene):
    own = [pair for pair in pairs(scene, 30) if pair.H_second_first is not None]
    assert len(own) > 10
    grid = np.stack(np.meshgrid(np.arange(10, 246, 12.0), np.arange(10, 182, 12.0)), -1)
    for pair in own:
        first = grid.reshape(-1, 2)
        second = transformed(pair.H_second_first, first)
        both = inside(second)
        column, row = np.rint(second[both]).astype(int).T
        x, y = first[both].astype(int).T
        difference = np.abs(pair.first_HW[y, x] - pair.second_HW[row, column])
        assert np.median(difference) < 3.0


def test_points_of_two_images_look_alike(scene, start):
    two = [pair for pair in pairs(scene, 60) if pair.H_second_first is None]
    assert len(two) > 3
    for pair in two:
        both = inside(pair.pixel_M2[0]) & inside(pair.pixel_M2[1])
        first, second = (xy[both] for xy in pair.pixel_M2)
        if len(first) < 10:
            continue
        one = descriptors(start, pair.first_HW, first)
        other = descriptors(start, pair.second_HW, second)
        found = (one @ other.T).argmax(axis=1)
        distance_px = np.linalg.norm(second[found] - second, axis=1)
        assert (distance_px < 12.0).mean() > 0.6


def test_the_changed_crop_is_covered_where_it_says(scene):
    drawn = pairs(scene, 30)
    covered = [pair for pair in drawn if pair.covered_HW.sum() > 500]
    assert 0 < len(covered) < len(drawn)
    for pair in covered:
        inner = cv2.erode(pair.covered_HW.astype(np.uint8), np.ones((9, 9), np.uint8)) > 0
        value = pair.changed_HW[inner]
        assert (np.abs(value - np.median(value)) < 0.01).mean() > 0.95


def test_fine_tuning_finds_the_same_points_again_in_other_light(scene, start, monkeypatch):
    monkeypatch.setattr("rgsiam_training.features.finetune.PAIRS", 3)
    before = {name: value.clone() for name, value in start.state_dict().items()}
    tuned = finetune(start, [scene], 20, seed=0)
    grid = np.stack(np.meshgrid(np.arange(8, 248, 8.0), np.arange(8, 184, 8.0)), -1)
    right = {start: [], tuned: []}
    for pair in pairs(scene, 24, seed=7):
        if pair.H_second_first is None:
            continue
        first = grid.reshape(-1, 2)
        second = transformed(pair.H_second_first, first)
        column, row = np.clip(np.rint(second), 0, (255, 191)).astype(int).T
        seen = inside(second) & ~pair.covered_HW[row, column]
        for network, shares in right.items():
            one = descriptors(network, pair.first_HW, first[seen])
            other = descriptors(network, pair.changed_HW, second[seen])
            shares.append(((one @ other.T).argmax(axis=1) == np.arange(len(one))).mean())
    assert np.mean(right[tuned]) > np.mean(right[start])
    for name, value in start.state_dict().items():
        torch.testing.assert_close(value, before[name], rtol=0.0, atol=0.0)
        if "running" in name:
            torch.testing.assert_close(tuned.state_dict()[name], value, rtol=0.0, atol=0.0)


def test_fine_tuning_with_one_seed_gives_one_network(scene, start, monkeypatch):
    monkeypatch.setattr("rgsiam_training.features.finetune.PAIRS", 2)
    one, same, other = (weights(finetune(start, [scene], 2, seed=seed)) for seed in (3, 3, 4))
    assert torch.equal(one, same)
    assert not torch.equal(one, other)


def test_a_stopped_run_goes_on_as_if_it_had_not_stopped(scene, start, monkeypatch, tmp_path):
    monkeypatch.setattr("rgsiam_training.features.finetune.PAIRS", 2)
    whole = finetune(start, [scene], 3, seed=3)
    checkpoint = tmp_path / "run.pt"

    class Stopped:
        """Ctrl-C after the second step."""

        def __init__(self):
            self.steps = 0

        def start(self, stage, steps):
            return self.advance

        def advance(self, steps):
            self.steps += steps
            if self.steps == 2:
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        finetune(start, [scene], 3, 3, checkpoint, Stopped())
    assert torch.load(checkpoint, weights_only=True)["done"] == 2
    again = finetune(start, [scene], 3, 3, checkpoint)
    assert torch.equal(weights(again), weights(whole))


def test_a_damaged_checkpoint_is_refused_in_one_line(scene, start, tmp_path):
    checkpoint = tmp_path / "run.pt"
    for content in (b"no checkpoint", b"PK"):
        checkpoint.write_bytes(content)
        with pytest.raises(RgsiamError, match=r"run\.pt is damaged: remove it") as error:
            finetune(start, [scene], 3, 3, checkpoint)
        assert "\n" not in str(error.value)


def test_the_frames_that_validate_a_map_are_left_out():
    drive = open_dataset(TOWN_MAP, "train")
    datasets = [Subset(drive, range(100)), Subset(drive, range(200, 260))]
    held_out = np.split(read_labels(datasets).held_out_N, [100])
    parts = tuning_parts(datasets)
    for part, dataset, held in zip(parts, datasets, held_out, strict=True):
        assert held.any()
        kept = [frame.name for frame in part.frames]
        assert kept == [f.name for f, h in zip(dataset.frames, held, strict=True) if not h]


def test_images_with_lens_distortion_are_undistorted(start):
    drive = Subset(open_dataset(TOWN_MAP, "train"), range(100, 112))
    drive.camera = drive.camera.model_copy(
        update={"distortion_model": "plumb_bob", "distortion": (0.2, 0.0, 0.0, 0.0, 0.0)}
    )
    scene = Scene(drive, start)
    image = scene.image(0)
    expected = fit_image(image, feature_preprocessing(drive.camera), drive.camera)
    np.testing.assert_array_equal(scene.fitted(image), expected.astype(np.float32))
    assert np.abs(scene.fitted(image) - cv2.resize(image, scene.size_wh)).mean() > 3.0
