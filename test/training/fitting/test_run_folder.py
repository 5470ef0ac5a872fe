"""What training refuses, and what a run gives to the export."""

import pytest
from support.bags import cut_bag
from support.paths import TOWN_MAP

torch = pytest.importorskip("torch", reason="the training extra is not installed here")
from support.small_training import TINY_BACKBONE, small_training

from rgsiam_ros.bundle import network_io
from rgsiam_ros.errors import DatasetError
from rgsiam_training.config import OVERLAP_TERMS, PAIR_TERMS
from rgsiam_training.fitting.run_folder import open_run
from rgsiam_training.fitting.train import CHECKPOINT_NAME, CONFIG_NAME, build, save_data


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    bag = cut_bag(TOWN_MAP, tmp_path_factory.mktemp("bag") / "short", images=40)
    return small_training(bag, network=TINY_BACKBONE)


def disabled(*terms):
    return {f"losses.{term}.enabled": False for term in terms}


@pytest.mark.slow
@pytest.mark.parametrize("term", ["relative_pose", "consistency", "mapnet_relative"])
def test_isolated_images_are_refused_by_terms_that_need_overlap(config, term):
    alone = config.with_settings(
        {"pairs.reach_m": 0.001, **disabled(*PAIR_TERMS), f"losses.{term}.enabled": True}
    )
    with pytest.raises(DatasetError, match=rf"need overlap \({term}\)"):
        build(alone)


@pytest.mark.slow
def test_isolated_images_are_accepted_without_terms_that_need_overlap(config):
    build(config.with_settings({"pairs.reach_m": 0.001, **disabled(*OVERLAP_TERMS)}))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("term", "output"),
    [
        ("uncertainty", network_io.PRECISION_FACTOR),
        ("metric_distance", network_io.METRIC_FEATURE),
    ],
)
def test_a_run_outputs_only_what_its_loss_terms_trained(config, tmp_path, term, output):
    def outputs(folder, settings):
        folder.mkdir()
        changed = config.with_settings(settings)
        module, _, data = build(changed)
        changed.save(folder / CONFIG_NAME)
        save_data(changed, data, folder)
        torch.save({"state_dict": module.state_dict()}, folder / CHECKPOINT_NAME)
        return open_run(folder).absolute_branch().output_names

    pose = {network_io.TRANSLATION, network_io.ROTATION}
    everything = pose | {network_io.PRECISION_FACTOR, network_io.METRIC_FEATURE}
    assert set(outputs(tmp_path / "all", {})) == everything
    assert set(outputs(tmp_path / "without", disabled(term))) == everything - {output}
    pairs_off = disabled("relative_pose", "consistency")
    assert set(outputs(tmp_path / "no_relative_pose", pairs_off)) == everything
