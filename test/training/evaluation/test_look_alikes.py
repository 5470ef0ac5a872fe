from pathlib import Path

import numpy as np
import pytest
from support.bundles import MAP_COLOURS, description
from support.images import flat_image

pytest.importorskip("torch", reason="the training extra is not installed here")

from rgsiam_ros.camera.model import Camera
from rgsiam_ros.errors import BundleError, DatasetError
from rgsiam_ros.recordings.base import Frame
from rgsiam_training.evaluation.look_alikes import measure_look_alikes

ORIGIN = np.array([1000.0, 2000.0, 3.0])
PLACES = [tuple((ORIGIN + 10.0 * MAP_COLOURS[i])[:2]) for i in (0, 1)]


class OneColour:
    content = b""

    def __init__(self, colour):
        self._colour = colour

    def decode(self, enough=None, levels=None):
        red, green, blue = np.round(255.0 * self._colour).astype(int)
        return flat_image(blue, green, red)


class Colours:
    """Images whose colours encode the true places; `labels` are the places given as ground truth."""

    path = Path("colours")
    camera = Camera.model_validate(description()["camera"])
    map_frame = "map"

    def __init__(self, seen, labels):
        self._seen = seen
        self.frames = []
        for i, colour in enumerate(labels):
            T = np.eye(4)
            T[:3, 3] = ORIGIN + 10.0 * np.asarray(colour)
            self.frames.append(Frame(f"{i}", "a", i, T))

    def read_images(self):
        return map(OneColour, self._seen)


HERE, THERE = MAP_COLOURS[0], MAP_COLOURS[1]
NEAR = [HERE, HERE + 0.02, THERE, THERE - 0.02, np.array([0.5, 0.9, 0.9])]


def test_no_image_of_distinct_places_is_counted(colour_bundle):
    found = measure_look_alikes(Colours(NEAR, NEAR), colour_bundle, PLACES, radius_m=1.5)
    assert found["images"] == 4  # the fifth shows neither place
    assert found["auroc"] == 1.0
    assert found["near_pairs"] >= 4
    assert found["median_m"] == pytest.approx(0.5, abs=0.05)
    assert found["wrong"] == 0.0


def test_images_with_features_of_the_other_place_are_counted(colour_bundle):
    """Two of four look like the other place, 7 m away."""
    labels = [HERE, HERE, THERE, THERE]
    seen = [HERE, THERE, HERE, THERE]
    found = measure_look_alikes(Colours(seen, labels), colour_bundle, PLACES, radius_m=1.5)
    assert found["wrong"] == 0.5
    assert found["auroc"] == pytest.approx(0.5, abs=0.1)


def test_nothing_to_compare_is_an_error(colour_bundle, small_bundle):
    images = Colours(NEAR, NEAR)
    with pytest.raises(DatasetError, match="at least two places"):
        measure_look_alikes(images, colour_bundle, PLACES[:1], 1.0)
    with pytest.raises(DatasetError, match="no image within 1 m"):
        measure_look_alikes(images, colour_bundle, [(0.0, 0.0), (5.0, 5.0)], 1.0)
    with pytest.raises(BundleError, match="no map features"):
        measure_look_alikes(images, small_bundle, PLACES, 1.0)
