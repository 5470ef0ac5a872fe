"""The presets, and `rgsiam compare` with tiny networks."""

import csv
import json

import numpy as np
import pytest
import yaml
from support.bags import cut_bag
from support.command_line import rgsiam
from support.paths import TOWN_DRIVE, TOWN_MAP
from support.poses import random_poses

torch = pytest.importorskip("torch", reason="the training extra is not installed here")
from support.small_training import TINY_BACKBONE, small_settings

from rgsiam_ros.errors import DatasetError, RgsiamError
from rgsiam_ros.uncertainty.geometric_trust import OUTDOORS, ROOM
from rgsiam_training.config import PAIR_TERMS, TrainingConfig
from rgsiam_training.data.preparation import PreparedImages
from rgsiam_training.evaluation.compare.estimators import NearestImageEstimator, thumbnail
from rgsiam_training.evaluation.compare.presets import PRESETS, presets_named, trainable
from rgsiam_training.evaluation.compare.robust_mean import robust_mean
from rgsiam_training.evaluation.compare.runner import RESULT_NAME, run_comparison
from rgsiam_training.evaluation.compare.scenes import open_scene
from rgsiam_training.evaluation.compare.table import MEAN_OF_SCENES, read_rows, write_tables
from rgsiam_training.export.bundle_export import export_bundle
from rgsiam_training.fitting.train import train

REQUIRED_PRESETS = "posenet posenet_learned posenet2 bayesian_posenet lstm_posenet hourglass relnet mapnet retrieval structure siamese"
TRAINED_ON_ONE_IMAGE = ("single", "posenet", "posenet_learned", "posenet2", "bayesian_posenet")
BASE = TrainingConfig(datasets=("x",))


def test_each_preset_gives_a_valid_configuration():
    names = {preset.name for preset in PRESETS}
    assert names >= set(REQUIRED_PRESETS.split())
    for preset in PRESETS:
        config = preset.apply(BASE)
        assert TrainingConfig.model_validate(config.model_dump(mode="json")) == config
        assert config.network.backbone == BASE.network.backbone
        assert config.optimisation == BASE.optimisation
        assert config.augmentation == BASE.augmentation
        for term in PAIR_TERMS:
            if preset.name in TRAINED_ON_ONE_IMAGE:
                assert not getattr(config.losses, term).enabled
    assert presets_named(["siamese"])[0].apply(BASE) == BASE
    with pytest.raises(DatasetError, match="there is no preset posnet: choose from siamese"):
        presets_named(["posnet"])


def test_a_scene_is_a_yaml_file_one_dataset_or_two_datasets(tmp_path):
    scene = {"name": "yard", "train": ["a", "b"], "test": "../c", "settings": {"input_width": 64}}
    path = tmp_path / "yard.yaml"
    path.write_text(yaml.safe_dump(scene))
    opened = open_scene(str(path))
    assert opened.train == (str(tmp_path / "a"), str(tmp_path / "b"))
    assert opened.test == str(tmp_path.parent / "c")
    assert opened.config(seed=3).input_width == 64
    assert opened.config(seed=3).seed == 3
    assert open_scene("maps/yard:drives/yard2").test == "drives/yard2"
    kitchen = open_scene("rooms/kitchen")  # a dataset with its own test split
    assert kitchen.train == (kitchen.test,) == ("rooms/kitchen",)
    path.write_text(yaml.safe_dump({**scene, "settings": {"input_wdth": 64}}))
    with pytest.raises(DatasetError, match=r"scene yard: settings: (.|\n)*input_wdth"):
        open_scene(str(path)).config(0)
    path.write_text("name: yard\n")
    with pytest.raises(DatasetError, match=r"yard.yaml: (.|\n)*train"):
        open_scene(str(path))


def test_the_nearest_thumbnail_is_the_same_view_in_other_light():
    random = np.random.default_rng(0)
    views = random.integers(0, 200, (5, 6, 8, 3)).repeat(16, 1).repeat(16, 2).astype(np.uint8)
    T = random_poses(5)
    stored = PreparedImages(views, T, np.zeros(5, np.int64), np.arange(5))
    estimator = NearestImageEstimator(stored, thumbnail, 0)
    brighter = np.clip(views[3] * 0.7 + 60.0, 0, 255).astype(np.uint8)
    np.testing.assert_array_equal(estimator.estimate(brighter), T[3])


def write_result(folder, scene, preset, seed, medians, limits=None, **figures):
    place = folder / scene / preset / f"seed-{seed}"
    place.mkdir(parents=True)
    rows = []
    for name, median in medians.items():
        row = {
            "estimator": name,
            "parameters": 2e6,
            "training_s": 60,
            "inference_ms": 5,
            "epochs": 3,
        }
        row |= {"median_m": median, "p95_m": 4 * median, "median_deg": 1.0, "p95_deg": 3.0}
        row |= {"recall_0.25m_2deg": 0.1, "recall_0.5m_5deg": 0.5, "recall_5m_10deg": 0.9}
        rows.append(row | figures)
    result = {"scene": scene, "preset": preset, "seed": seed, "key": "k", "estimates": rows}
    result |= {} if limits is None else {"limits": vars(limits)}
    (place / RESULT_NAME).write_text(json.dumps(result))


def test_the_table_averages_over_seeds_and_then_over_scenes(tmp_path):
    for scene, offset in (("hall", 0.0), ("yard", 1.0)):
        for seed in (0, 1):
            write_result(tmp_path, scene, "posenet", seed, {"absolute": 2.0 + offset + seed})
            both = {"nearest_feature": 1.0 + offset, "nearest_thumbnail": 0.5 + offset}
            write_result(tmp_path, scene, "retrieval", seed, both)
    write_result(tmp_path, "yard", "mapnet", 0, {"absolute": 7.0})
    rows = {(row.scene, row.method): row for row in write_tables(tmp_path, ["measured here"])}
    posenet = rows["hall", "posenet"]
    assert posenet.mean["median_m"] == pytest.approx(2.5)
    assert posenet.spread["median_m"] == pytest.approx(np.std([2.0, 3.0], ddof=1))
    assert rows[MEAN_OF_SCENES, "posenet"].mean["median_m"] == pytest.approx(3.0)
    assert rows[MEAN_OF_SCENES, "retrieval, nearest_thumbnail"].mean["median_m"] == pytest.approx(
        1.0
    )
    assert (MEAN_OF_SCENES, "mapnet") not in rows  # it has no result on one of the scenes
    assert np.isnan(rows["yard", "mapnet"].spread["median_m"])
    text = (tmp_path / "compare.md").read_text()
    assert "| posenet | 2 | 2.50 ± 0.71 | 10.00 ± 2.83 | 1.00 ± 0.00 |" in text
    assert "| mapnet | 1 | 7.00 | 28.00 |" in text
    assert text.endswith("measured here\n")
    with (tmp_path / "compare.csv").open() as file:
        table = list(csv.DictReader(file))
    assert len(table) == len(rows)
    assert (
        float(table[0]["median_m"]) == rows[table[0]["scene"], table[0]["method"]].mean["median_m"]
    )
    assert (tmp_path / "compare.png").read_bytes().startswith(b"\x89PNG")


def test_the_share_of_answered_images_is_beside_the_errors(tmp_path):
    write_result(
        tmp_path, "hall", "posenet", 0, {"absolute": 2.0}
    )  # of a release without the share
    write_result(tmp_path, "hall", "structure", 0, {"structure": 0.5}, answered=0.985)
    nothing = dict.fromkeys(("p95_m", "median_deg", "p95_deg"), np.nan)
    write_result(tmp_path, "yard", "structure", 0, {"structure": np.nan}, answered=0.0, **nothing)
    write_tables(tmp_path)
    text = (tmp_path / "compare.md").read_text()
    assert "| median deg | p95 deg | answered | right | wrong | 0.25 m 2° |" in text
    assert "| posenet | 1 | 2.00 | 8.00 | 1.00 | 3.00 | 100.0% | - | - | 10% |" in text
    assert "| structure | 1 | 0.50 | 2.00 | 1.00 | 3.00 | 98.5% | - | - | 10% |" in text
    assert "| structure | 1 | - | - | - | - | 0.0% | - | - | 10% |" in text


def test_recall_levels_follow_the_scale_of_each_scene(tmp_path):
    shares = {"right": 0.8, "wrong": 0.05, "recall_fine": 0.1}
    shares |= {"recall_middle": 0.5, "recall_coarse": 0.9}
    write_result(tmp_path, "kitchen", "posenet", 0, {"absolute": 0.1}, ROOM, **shares)
    write_result(tmp_path, "yard", "posenet", 0, {"absolute": 2.0}, OUTDOORS, **shares)
    write_tables(tmp_path)
    kitchen, yard, mean = (tmp_path / "compare.md").read_text().split("###")[1:]
    assert "| answered | right | wrong | 0.0625 m 2° | 0.125 m 5° | 0.5 m 10° |" in kitchen
    assert "Right is within 0.25 m and 5 deg, wrong is off by more than 0.5 m" in kitchen
    assert "| answered | right | wrong | 0.25 m 2° | 0.5 m 5° | 5 m 10° |" in yard
    assert "| recall, fine | recall, middle | recall, coarse |" in mean
    for text in (kitchen, yard, mean):
        assert "| 100.0% | 80.0% | 5.0% | 10% | 50% | 90% |" in text


def test_a_folder_without_valid_results_is_an_error(tmp_path):
    with pytest.raises(DatasetError, match="holds no result yet"):
        read_rows(tmp_path)
    place = tmp_path / "hall" / "posenet" / "seed-0"
    place.mkdir(parents=True)
    (place / RESULT_NAME).write_text("{}")
    with pytest.raises(DatasetError, match=r"result.json is no result of `rgsiam compare`"):
        read_rows(tmp_path)


FEW_PAIRS = {"optimisation": {"batch_pairs": 4}}
TINY = small_settings(network=TINY_BACKBONE, **FEW_PAIRS)
ONE_EPOCH_MIN = 1e-9
"""So small a budget that a single epoch is trained."""


@pytest.fixture(scope="module")
def scene_file(tmp_path_factory):
    """A scene of 70 images to train on and 12 to test with, for a tiny network."""
    folder = tmp_path_factory.mktemp("scene")
    cut_bag(TOWN_MAP, folder / "map", images=70)
    cut_bag(TOWN_DRIVE, folder / "drive", images=12)
    scene = {"name": "short", "train": ["map"], "test": "drive", "settings": TINY}
    (folder / "short.yaml").write_text(yaml.safe_dump(scene))
    return folder / "short.yaml"


def compare_presets(scene, out, presets, seeds=(0,), budget_min=ONE_EPOCH_MIN):
    run_comparison([scene], presets_named(presets), seeds, budget_min, out)


def rows_of(out):
    rows = {row.method: row for row in read_rows(out)}
    assert all(np.isfinite(list(row.mean.values())).all() for row in rows.values())
    return rows


@pytest.mark.slow
def test_the_command_line_compares_and_writes_the_table(scene_file, tmp_path):
    out = tmp_path / "out"
    options = ["--out", out, "--presets", "posenet2,bayesian_posenet", "--budget", "0.01"]
    done = rgsiam("compare", scene_file, *options)
    assert done.returncode == 0, done.stderr[-2000:]
    assert "posenet2 on short left out: " in done.stderr
    assert "which topic is the depth" in done.stderr.replace("\n", " ")
    assert set(rows_of(out)) == {"bayesian_posenet"}
    assert "| bayesian_posenet | 1 |" in (out / "compare.md").read_text()


@pytest.mark.slow
def test_presets_with_imagenet_weights_give_results(scene_file, tmp_path):
    """They need the default backbone: its weights are there without internet."""
    scene = open_scene(str(scene_file)).model_copy(update={"settings": small_settings(**FEW_PAIRS)})
    compare_presets(scene, tmp_path, ["retrieval", "relnet"])
    rows = rows_of(tmp_path)
    assert set(rows) == {"relnet", "retrieval, nearest_feature", "retrieval, nearest_thumbnail"}
    assert rows["retrieval, nearest_thumbnail"].mean["parameters"] == 0.0


@pytest.mark.slow
def test_existing_results_are_kept_and_missing_ones_added(scene_file, tmp_path, caplog):
    scene = open_scene(str(scene_file))
    compare_presets(scene, tmp_path, ["siamese"])
    rows = rows_of(tmp_path)
    assert set(rows) == {"siamese"}
    result = tmp_path / "short" / "siamese" / "seed-0" / RESULT_NAME
    before = result.read_bytes(), result.stat().st_mtime_ns
    caplog.clear()
    with caplog.at_level("INFO"):
        compare_presets(scene, tmp_path, ["siamese"], seeds=(0, 1))
    assert (result.read_bytes(), result.stat().st_mtime_ns) == before
    started = [message for message in caplog.messages if "seed" in message]
    assert started == ["short, siamese, seed 1"]
    assert rows_of(tmp_path)["siamese"].seeds == 2
    with pytest.raises(DatasetError, match="made with other settings, data paths or budget"):
        compare_presets(scene, tmp_path, ["siamese"], budget_min=0.02)


@pytest.mark.slow
def test_the_command_train_takes_a_preset(scene_file, tmp_path):
    config = tmp_path / "config.yaml"
    config.write_text(yaml.safe_dump(TINY))
    options = ["--config", config, "--out", tmp_path / "run", "--preset", "hourglass"]
    done = rgsiam("train", scene_file.parent / "map", *options)
    assert done.returncode == 0, done.stderr[-2000:]
    bundle = export_bundle(tmp_path / "run", tmp_path / "bundle", precisions=())
    assert bundle.manifest.absolute.retrieval is None
    with pytest.raises(DatasetError, match="preset retrieval trains nothing"):
        trainable("retrieval")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("preset", "why"),
    [
        ("lstm_posenet", "LSTMs cannot be exported"),
        ("relnet", "no absolute branch to export"),
    ],
)
def test_presets_that_cannot_be_exported_are_refused(scene_file, tmp_path, preset, why):
    config = trainable(preset).apply(open_scene(str(scene_file)).config(seed=0))
    train(config, tmp_path / "run", progress=False)
    with pytest.raises(RgsiamError, match=why):
        export_bundle(tmp_path / "run", tmp_path / "bundle")


@pytest.mark.slow
def test_an_interrupted_training_is_resumed(scene_file, tmp_path):
    scene = open_scene(str(scene_file))
    compare_presets(scene, tmp_path, ["posenet"])
    folder = tmp_path / "short" / "posenet" / "seed-0"
    first = json.loads((folder / RESULT_NAME).read_text())
    (folder / RESULT_NAME).unlink()
    config = (folder / "run" / "config.yaml").read_bytes()
    compare_presets(scene, tmp_path, ["posenet"])
    assert (folder / "run" / "config.yaml").read_bytes() == config
    second = json.loads((folder / RESULT_NAME).read_text())
    assert second["estimates"][0]["median_m"] == first["estimates"][0]["median_m"]
    assert second["estimates"][0]["training_s"] > first["estimates"][0]["training_s"]


@pytest.mark.slow
def test_the_geometric_branch_is_compared_on_a_map_of_its_own(scene_file, tmp_path):
    compare_presets(open_scene(str(scene_file)), tmp_path, ["geometric"])
    row = rows_of(tmp_path)["geometric"]
    assert row.mean["answered"] > 0.9
    assert row.mean["median_m"] < 0.5
    assert row.mean["training_s"] > 0.0


def test_the_robust_mean_ignores_a_pose_that_is_far_off():
    T = np.tile(np.eye(4), (5, 1, 1))
    T[:, 0, 3] = [1.0, 1.01, 0.99, 1.0, 60.0]
    mean = robust_mean(T, agree_m=0.5, metres_per_radian=4.0)
    np.testing.assert_allclose(mean[:3, 3], [1.0, 0.0, 0.0], atol=0.02)
    np.testing.assert_allclose(mean[:3, :3], np.eye(3), atol=1e-9)
