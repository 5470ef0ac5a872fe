"""Bundles with an absolute part, with a geometric part, and with both."""

from dataclasses import replace

import cv2
import numpy as np
import onnx
import pytest
from support.bundles import (
    description,
    edit_manifest,
    geometric_parts,
    int8_parts,
    local_features_network,
    npz_bytes,
    parts_of_both_branches,
    small_map_points,
)

from rgsiam_ros.bundle import Bundle, geometry_for, refuse_existing, write_bundle
from rgsiam_ros.bundle.parts import MapExtent
from rgsiam_ros.bundle.precision import local_features_name
from rgsiam_ros.engines.served import absolute_network
from rgsiam_ros.errors import BundleError
from rgsiam_ros.uncertainty.geometric_trust import OUTDOORS, ROOM


@pytest.fixture
def geometric(tmp_path):
    return write_bundle(tmp_path / "geometric", *geometric_parts())


@pytest.fixture
def both(tmp_path):
    return write_bundle(tmp_path / "both", *parts_of_both_branches())


def test_a_bundle_with_only_a_geometric_part_is_read_back(geometric):
    bundle = Bundle.load(geometric.path)
    manifest = bundle.manifest
    assert manifest.absolute is None
    assert manifest.precisions == ("float32",)
    assert manifest.turn_wxyz == (1.0, 0.0, 0.0, 0.0)
    assert manifest.geometric_part.placement.origin_m == (1000.0, 2000.0, 3.0)
    assert manifest.geometric_part.validation is None
    assert bundle.features_onnx() == local_features_network()
    np.testing.assert_array_equal(bundle.map_points.position_P3, np.arange(9.0).reshape(3, 3))
    assert bundle.golden_views.view_NHW.shape == (2, 32, 64)
    with pytest.raises(BundleError, match="no int8 network, only float32: export with"):
        bundle.features_onnx("int8")


def test_a_bundle_without_an_absolute_part_says_so(geometric):
    uses = (
        lambda: geometric.manifest.absolute_part,
        geometric.absolute_onnx,
        geometric.map_features,
        lambda: geometric.golden,
        lambda: absolute_network(geometric),
    )
    for use in uses:
        with pytest.raises(BundleError, match="small has no absolute branch: export a run"):
            use()


def test_a_bundle_without_a_geometric_part_says_so(small_bundle):
    bundle = Bundle.load(small_bundle)
    for use in (
        lambda: bundle.manifest.geometric_part,
        bundle.features_onnx,
        lambda: bundle.map_points,
        lambda: bundle.golden_views,
    ):
        with pytest.raises(BundleError, match="has no geometric branch"):
            use()


def test_right_and_wrong_are_those_of_the_map(tmp_path, both, small_bundle):
    assert both.manifest.limits == OUTDOORS
    assert Bundle.load(small_bundle).manifest.limits == OUTDOORS  # of an older release
    text, contents = parts_of_both_branches()
    text["absolute"] |= MapExtent.of_scale(1.0).model_dump()
    room = write_bundle(tmp_path / "room", text, contents).manifest
    assert room.absolute_part.limits == ROOM
    assert room.limits == OUTDOORS  # the geometric part's
    text["geometry"] |= {"map_scale_m": 2.0, "right_m": 0.3, "wrong_m": 0.7}
    own = write_bundle(tmp_path / "own", text, contents).manifest
    assert (own.limits.right_m, own.limits.wrong_m) == (0.3, 0.7)


def test_a_bundle_may_have_both_parts(both):
    assert both.manifest.precisions == ("float32", "int8")
    assert both.manifest.geometric_part.precisions == ("float32",)
    assert both.features_onnx() == local_features_network()
    assert both.absolute_onnx("int8") == both.content("absolute.int8.onnx")
    with pytest.raises(BundleError, match="no int8 network, only float32"):
        both.features_onnx("int8")


def test_a_precision_has_its_own_local_features_or_those_of_float32(tmp_path):
    names = {p: local_features_name(p) for p in ("float32", "bfloat16", "float16", "int8")}
    assert names == {
        "float32": "local_features.onnx",
        "bfloat16": "local_features.onnx",
        "float16": "local_features.float16.onnx",
        "int8": "local_features.int8.onnx",
    }
    text, contents = geometric_parts()
    variants = text["geometry"]["variants"]
    variants |= {"bfloat16": variants["float32"], "int8": variants["float32"]}
    with pytest.raises(
        BundleError, match=r"variant int8 of geometry needs local_features.int8.onnx, which files"
    ):
        write_bundle(tmp_path / "b", text, contents)
    contents["local_features.int8.onnx"] = local_features_network()
    bundle = write_bundle(tmp_path / "b", text, contents)
    assert bundle.manifest.precisions == ("float32", "bfloat16", "int8")
    assert bundle.features_onnx("bfloat16") == bundle.content("local_features.onnx")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("local_features.onnx", "variant float32 of geometry needs local_features.onnx"),
        ("map_points.npz", "geometry needs map_points.npz, which files does not list"),
        ("golden_views.npz", "geometry needs golden_views.npz, which files does not list"),
    ],
)
def test_a_geometric_part_without_its_files_is_refused(geometric, name, message):
    edit_manifest(geometric.path, lambda data: data["files"].pop(name))
    with pytest.raises(BundleError, match=message):
        Bundle.load(geometric.path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda data: data.update(geometry=None, absolute=None),
            "neither absolute nor geometry: a bundle needs one",
        ),
        (
            lambda data: data["geometry"]["placement"].update(turn_wxyz=[0.0, 0.0, 0.0, 1.0]),
            "turn_wxyz of absolute.target and geometry.placement differ",
        ),
        (
            lambda data: data.update(absolute=None, calibrations={}),
            r"files lists absolute.*onnx, but the manifest has no absolute",
        ),
        (
            lambda data: data.update(geometry=None),
            "files lists golden_views.npz, but the manifest has no geometry",
        ),
        (
            lambda data: data["geometry"]["preprocessing"].update(mask="mask.png"),
            "preprocessing names a mask 'mask.png' not in files",
        ),
    ],
)
def test_parts_that_do_not_fit_together_are_refused(both, change, message):
    edit_manifest(both.path, change)
    with pytest.raises(BundleError, match=message):
        Bundle.load(both.path)


def test_the_same_turn_of_opposite_sign_is_no_difference(both):
    edit_manifest(
        both.path,
        lambda data: data["geometry"]["placement"].update(turn_wxyz=[-1.0, 0.0, 0.0, 0.0]),
    )
    Bundle.load(both.path)


def test_calibrations_need_an_absolute_part(geometric):
    summary = {
        "source": "test",
        "frames": 1,
        "false_accept_rate": 0.01,
        "accepted": 1.0,
        "wrong_m": 1.0,
    }
    edit_manifest(geometric.path, lambda data: data.update(calibrations={"float32": summary}))
    with pytest.raises(BundleError, match="calibrations needs absolute"):
        Bundle.load(geometric.path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"keypoints": 15}, "geometry.keypoints"),
        ({"keypoints": 8193}, "geometry.keypoints"),
        ({"candidates": 65}, "geometry.candidates"),
        ({"fewest_inliers": 3}, "geometry.fewest_inliers"),
        ({"pixel_sigma": 0.0}, "geometry.pixel_sigma"),
        ({"position_factor": 0.0}, "geometry.position_factor"),
        ({"rotation_factor": float("nan")}, "geometry.rotation_factor"),
        ({"floor_m": -0.1}, "geometry.floor_m"),
        ({"map_images": 0}, "geometry.map_images"),
        ({"points": 0}, "geometry.points"),
        ({"variants": {}}, "geometry: Value error, variants does not list float32"),
        (
            {"preprocessing": {"input_width": 72, "input_height": 32}},
            "preprocessing gives 72x32 pixels, but the sides must be multiples of 32",
        ),
        (
            {"placement": {"origin_m": [0.0, 0.0, 0.0], "turn_wxyz": [1.0, 1.0, 0.0, 0.0]}},
            "geometry.placement.turn_wxyz",
        ),
        (
            {"placement": {"origin_m": [0.0, 0.0, 0.0], "scale_m": 1.0}},
            "geometry.placement.scale_m",
        ),
    ],
)
def test_bad_values_of_the_geometric_part_are_refused(geometric, change, message):
    edit_manifest(geometric.path, lambda data: data["geometry"].update(change))
    with pytest.raises(BundleError, match=message):
        Bundle.load(geometric.path)


def test_the_figures_on_held_out_frames_are_read(geometric):
    errors = dict.fromkeys(("median_m", "p95_m", "median_deg", "p95_deg"), 0.1)
    shares = {"answered": 0.9, "right": 0.8, "wrong": 0.1}
    figures = {"kind": "every tenth image", "frames": 10, **shares, **errors}
    edit_manifest(geometric.path, lambda data: data["geometry"].update(validation=figures))
    validation = Bundle.load(geometric.path).manifest.geometric_part.validation
    assert validation is not None
    assert validation.answered == 0.9
    edit_manifest(geometric.path, lambda data: data["geometry"]["validation"].update(answered=1.1))
    with pytest.raises(BundleError, match="geometry.validation.answered"):
        Bundle.load(geometric.path)


def renamed_output():
    model = onnx.load_model_from_string(local_features_network())
    model.graph.node[0].output[0] = model.graph.output[2].name = "warmth"
    model.graph.node[1].input[0] = "warmth"
    return model.SerializeToString()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (lambda: local_features_network(width=96), r"takes image \(1, 1, 32, 96\).*\(1, 1, 32, 64"),
        (renamed_output, r"gives .*warmth.*needs descriptors \(1, 64, 4, 8\)"),
        (lambda: b"not a network", "not an ONNX file|without a graph"),
    ],
)
def test_a_local_feature_network_that_does_not_fit_is_refused(tmp_path, content, message):
    text, contents = geometric_parts()
    with pytest.raises(BundleError, match=message):
        write_bundle(tmp_path / "b", text, {**contents, "local_features.onnx": content()})


def test_arrays_of_the_geometric_part_are_checked(tmp_path):
    text, contents = geometric_parts()
    contents["map_points.npz"] = npz_bytes({"offset_P3": np.full((3, 3), np.nan)})
    with pytest.raises(BundleError, match=r"map_points.npz: array 'offset_P3' holds a non-finite"):
        write_bundle(tmp_path / "b", text, contents)


def test_each_part_may_name_the_mask(tmp_path):
    text, contents = parts_of_both_branches()
    mask = np.full((96, 128), 255, np.uint8)
    contents["mask.png"] = cv2.imencode(".png", mask)[1].tobytes()
    text["geometry"]["preprocessing"]["mask"] = "mask.png"
    bundle = write_bundle(tmp_path / "b", text, contents)
    manifest = bundle.manifest
    assert bundle.mask_HW(manifest.geometric_part.preprocessing).shape == (96, 128)
    assert bundle.mask_HW(manifest.absolute_part.preprocessing) is None


def test_fields_of_schema_version_2_have_no_place(tmp_path):
    text = description()
    text["training_data"] = text.pop("mapping_data")
    with pytest.raises(BundleError, match="mapping_data"):
        write_bundle(tmp_path / "b", text, {})


def test_a_geometric_part_is_added_to_a_bundle_of_the_same_camera(geometric, tmp_path):
    text, contents = int8_parts()
    camera = geometric.manifest.camera
    part, files = geometry_for(geometric, camera, "map")
    joined = write_bundle(tmp_path / "joined", text | {"geometry": part}, contents | files)
    assert joined.manifest.geometry == geometric.manifest.geometry
    assert joined.content("map_points.npz") == geometric.content("map_points.npz")
    with pytest.raises(BundleError, match="has the map frame map, not town"):
        geometry_for(geometric, camera, "town")
    with pytest.raises(BundleError, match="is of another camera"):
        geometry_for(geometric, camera.model_copy(update={"fx": camera.fx + 1.0}), "map")


def test_a_bundle_without_a_map_has_nothing_to_add(small_bundle):
    bundle = Bundle.load(small_bundle)
    with pytest.raises(BundleError, match="has no geometric branch"):
        geometry_for(bundle, bundle.manifest.camera, bundle.manifest.map_frame)


@pytest.mark.parametrize("name", ["my map", "-x", "a" * 65, "ä"])
def test_a_name_that_no_bundle_can_have_is_refused_at_once(tmp_path, name):
    with pytest.raises(BundleError, match="cannot be the name of a bundle: take letters"):
        refuse_existing(tmp_path / name)
    refuse_existing(tmp_path / "my_map-1.0")


def test_the_sessions_of_a_map_are_those_of_its_images(tmp_path):
    text, contents = geometric_parts()
    one = text["geometry"]["sessions"][0]
    for sessions, message in (
        ([], "at least 1 item"),
        ([{**one, "images": 3}], "the images of sessions are not as many as map_images"),
        ([{**one, "images": 1}, {**one, "images": 1}], "one name twice: drive, drive"),
        ([{**one, "name": "../drive"}], "sessions.0.name"),
        ([{**one, "recorded": "yesterday"}], "sessions.0.recorded"),
    ):
        geometry = {**text["geometry"], "sessions": sessions}
        with pytest.raises(BundleError, match=message):
            write_bundle(tmp_path / "b", text | {"geometry": geometry}, contents)


def test_removed_points_are_counted_and_not_used(tmp_path):
    text, contents = geometric_parts()
    one = text["geometry"]["sessions"][0]
    removed = replace(small_map_points(), removed_by_P=np.array([0, 0, 1], np.uint8))
    contents["map_points.npz"] = npz_bytes(removed.to_arrays())
    sessions = [{**one, "images": 1}, {**one, "images": 1, "name": "later", "removed": 1}]
    geometry = text["geometry"] | {"points": 2, "removed_points": 1, "sessions": sessions}
    bundle = write_bundle(tmp_path / "b", text | {"geometry": geometry}, contents)
    assert len(bundle.map_points.position_P3) == 2
    assert len(bundle.stored_points.position_P3) == 3
    for change, message in (
        ({"points": 3}, "2 points and 1 removed ones; the manifest says 2, 3 and 1"),
        ({"removed_points": 2}, "removed_points is larger"),
        ({"sessions": [{**one, "removed": 1}]}, "that an unknown session removed"),
    ):
        with pytest.raises(BundleError, match=message):
            write_bundle(tmp_path / "c", text | {"geometry": geometry | change}, contents)
