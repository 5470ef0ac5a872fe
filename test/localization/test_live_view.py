import numpy as np
import pytest
from support.bundles import edit_manifest, geometric_parts, parts_of_both_branches

from rgsiam_ros.bundle import Bundle, write_bundle
from rgsiam_ros.camera.model import Camera
from rgsiam_ros.errors import BundleError
from rgsiam_ros.features.network import intrinsics
from rgsiam_ros.localization.live_view import LiveView

STATED = Camera(width=128, height=96, fx=100.0, fy=100.0, cx=64.0, cy=48.0)


def test_a_refined_focal_length_holds_for_the_live_camera_too(tmp_path):
    """The live camera_info has the focal length that the mapping camera_info had."""
    text, contents = geometric_parts()
    refined = STATED.with_focal_scale(1.1)
    text["camera"] = refined.model_dump(mode="json")
    text["geometry"]["focal_scale"] = 1.1
    bundle = write_bundle(tmp_path / "refined", text, contents)
    preprocessing = bundle.manifest.geometric_part.preprocessing
    live = LiveView(bundle, preprocessing)
    assert live.use_camera(STATED).identical
    np.testing.assert_allclose(live.K, intrinsics(refined, preprocessing))
    wider = STATED.model_copy(update={"width": 256, "height": 192, "cx": 128.0, "cy": 96.0})
    view = live.use_camera(wider)
    assert view.crop_xywh == (64, 48, 128, 96)
    np.testing.assert_allclose(live.K, intrinsics(refined, preprocessing))


def test_two_parts_with_different_focal_scales_are_refused(tmp_path):
    bundle = write_bundle(tmp_path / "both", *parts_of_both_branches())

    def change(manifest):
        manifest["geometry"]["focal_scale"] = 1.1

    edit_manifest(bundle.path, change)
    with pytest.raises(BundleError, match="focal_scale of absolute and geometry differ"):
        Bundle.load(bundle.path)
