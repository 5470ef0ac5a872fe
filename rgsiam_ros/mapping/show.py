"""Draw a map, and one frame of a dataset that is localized in it: the command `rgsiam map show`."""

from __future__ import annotations

import logging
from itertools import islice
from pathlib import Path

from rgsiam_ros.bundle import Bundle
from rgsiam_ros.errors import DatasetError, ResultsError
from rgsiam_ros.localization.relocalizer import Relocalizer
from rgsiam_ros.mapping.picture import LocalizedFrame, draw_map
from rgsiam_ros.recordings.base import Dataset
from rgsiam_ros.recordings.ground_truth import truth_turn

logger = logging.getLogger(__name__)


def show_map(
    bundle_path: Path, out: Path, width: int, dataset: Dataset | None, index: int | None
) -> None:
    """Write the picture `out`, a PNG of `width` pixels.

    index: of the frame of `dataset` that is localized, the middle one if None. Raises BundleError if the bundle
    has no geometric branch, DatasetError if the dataset has no such frame, ResultsError if the picture cannot
    be written, and the errors of `Relocalizer.estimate` if the frame's image cannot be used.
    """
    bundle = Bundle.load(bundle_path)
    points = bundle.points_in_map()
    if dataset is not None:
        index = _chosen(dataset, index)
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        frame = None
        if dataset is not None and index is not None:
            frame = localize_frame(bundle, dataset, index)
        draw_map(points, bundle.manifest, out, width, frame)
    except OSError as error:
        raise ResultsError(f"{out} cannot be written ({error}): change --out") from error


def _chosen(dataset: Dataset, index: int | None) -> int:
    count = len(dataset.frames)
    if not count:
        raise DatasetError(f"{dataset.path} has no usable frame, see `rgsiam inspect`")
    if index is None:
        index = count // 2
        logger.info(
            "%s: frame %d of 0 to %d is shown, the middle one; --frame chooses another",
            *(dataset.path, index, count - 1),
        )
    if index >= count:
        raise DatasetError(f"{dataset.path} has no frame {index}: its frames are 0 to {count - 1}")
    return index


def localize_frame(bundle: Bundle, dataset: Dataset, index: int) -> LocalizedFrame:
    """Localize one frame of a dataset alone, without the frame before. Raises RgsiamError."""
    relocalizer = Relocalizer.from_bundle(bundle)
    try:
        relocalizer.use_camera(dataset.camera)
        turn = truth_turn(relocalizer.manifest, dataset.map_frame, dataset.path)
        source = next(islice(dataset.read_images(), index, None))
        image = source.decode(levels=relocalizer.levels)
        estimate, fitted = relocalizer.estimate(image), relocalizer.fit(image)
    finally:
        relocalizer.close()
    frame = dataset.frames[index]
    name = f"{dataset.path.name}, frame {index}: {frame.name}"
    return LocalizedFrame(name, fitted, estimate, turn @ frame.T_map_camera)
