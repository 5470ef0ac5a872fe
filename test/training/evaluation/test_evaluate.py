"""The results folder of `rgsiam evaluate`."""

import json

import pytest
import yaml
from rich.console import Console
from support.bags import cut_bag
from support.paths import TOWN_DRIVE

from rgsiam_ros.report.schema import Metrics
from rgsiam_training.evaluation.evaluate import evaluate_dataset


@pytest.mark.slow
def test_the_report_names_the_images_of_the_dataset(tmp_path, town_like_bundle):
    bag = cut_bag(TOWN_DRIVE, tmp_path / "short", images=5)
    for name, images in (("with", True), ("without", False)):
        out, console = tmp_path / name, Console(quiet=True)
        evaluate_dataset(bag, town_like_bundle, out, console, split="test", images=images)
        page = (out / "report.html").read_text()
        assert page.count("data:image/webp") == (5 if images else 0)
        assert page.count("<b>Image ") == 5
        assert page.count(", short/") >= 5  # the names of the frames
        assert ("--no-images" in page) != images
    assert Metrics.model_validate(json.loads((out / "metrics.json").read_text())).frames == 5
    provenance = yaml.safe_load((out / "config.yaml").read_text())["provenance"]
    assert provenance["data"] == str(bag)
