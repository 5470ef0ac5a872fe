"""Selection of an engine; an engine with wrong results is not selected."""

import io

import numpy as np
import pytest
from support.bundles import (
    ABSOLUTE_BIAS,
    INT8_BIAS,
    colour_absolute,
    golden_arrays,
    int8_parts,
    npz_bytes,
)
from support.images import flat_image
from support.paths import TOWN_BUNDLE

from rgsiam_ros.bundle import Bundle, write_bundle
from rgsiam_ros.bundle.precision import PRECISIONS
from rgsiam_ros.engines import ENGINES
from rgsiam_ros.engines.benchmark import benchmark_engines
from rgsiam_ros.engines.options import EngineOptions
from rgsiam_ros.engines.selection import ORDER, candidates, select_engine
from rgsiam_ros.engines.served import absolute_network
from rgsiam_ros.errors import EngineError
from rgsiam_ros.localization.relocalizer import Relocalizer

LIVE = (76, 102, 204)
VNNI = ("avx512_vnni",)


def off_by(relocalizer):
    """Error of the absolute branch along x, metres."""
    estimate = relocalizer.estimate(flat_image(*LIVE))
    return estimate.T_map_camera[0, 3] - (1000.0 + 10.0 * LIVE[2] / 255.0)


def test_candidates_are_ordered_by_speed():
    every = candidates(PRECISIONS, "auto", "auto", VNNI)
    assert every == list(ORDER)
    assert every[0] == ("tensorrt", "float16")
    assert every.index(("openvino", "int8")) < every.index(("onnxruntime", "float32"))
    assert {name for name, _ in every} == set(ENGINES) - {"onnxruntime_tensorrt"}  # only by name
    assert candidates(("float32", "int8"), "onnxruntime_tensorrt", "auto", VNNI)
    old = candidates(PRECISIONS, "auto", "auto", ("sse4_2", "avx2"))
    assert not [c for c in old if c[1] == "int8"]
    assert ("openvino", "int8") in candidates(PRECISIONS, "openvino", "int8", ())
    assert candidates(("float32",), "openvino", "auto", VNNI) == [("openvino", "float32")]


def test_unknown_names_are_refused():
    with pytest.raises(EngineError, match="engine 'warp' is unknown"):
        candidates(PRECISIONS, "warp", "auto")
    with pytest.raises(EngineError, match="precision 'int4' is unknown: choose auto or one of"):
        candidates(PRECISIONS, "auto", "int4")
    with pytest.raises(EngineError, match="no int8 network, only float32: export with --precision"):
        candidates(("float32",), "auto", "int8")


@pytest.mark.slow
def test_the_town_bundle_passes_the_self_test():
    bundle = Bundle.load(TOWN_BUNDLE)
    engines = select_engine(bundle, EngineOptions(), absolute_network(bundle))
    tolerance = bundle.manifest.absolute.variants[engines.precision].tolerance
    assert 0.0 < engines.differences.position_m <= tolerance.position_m
    assert 0.0 < engines.differences.metric_feature <= tolerance.metric_feature
    assert not engines.fell_back
    engines.close()


def broken(tmp_path, **changes):
    """Write a bundle in which a network does not give the golden outputs."""
    text, contents = int8_parts()
    contents |= {name.replace("_onnx", ".onnx"): value for name, value in changes.items()}
    return write_bundle(tmp_path / "broken", text, contents).path


@pytest.mark.slow
def test_a_network_with_wrong_results_is_refused(tmp_path, int8_bundle):
    """The network is wrong by half a metre; the self-test allows 0.15 m."""
    int8 = EngineOptions("onnxruntime", "int8")
    good = Relocalizer.from_bundle(int8_bundle, int8, branch="absolute")
    assert off_by(good) == pytest.approx(10.0 * INT8_BIAS, abs=1e-3)
    assert good.engine.refused == []
    assert good.engine.differences.position_m == pytest.approx(0.1, abs=1e-3)
    wrong = colour_absolute(bias=ABSOLUTE_BIAS + 0.05)
    path = broken(tmp_path, **{"absolute.int8_onnx": wrong})
    relocalizer = Relocalizer.from_bundle(path, int8, branch="absolute")
    assert relocalizer.engine.precision == "float32"  # the next one serves
    assert relocalizer.engine.fell_back
    assert off_by(relocalizer) == pytest.approx(10.0 * ABSOLUTE_BIAS, abs=1e-3)
    reason = next(r for r in relocalizer.engine.refused if r.engine == "onnxruntime")
    assert "failed the self-test: position is off by 50 cm, 15 cm is allowed" in str(reason)
    with pytest.raises(
        EngineError, match=r"no engine serves .*onnxruntime int8: failed the self-test"
    ):
        Relocalizer.from_bundle(path, EngineOptions("onnxruntime", "int8", fallback="none"))


def test_the_self_test_covers_every_output(tmp_path):
    """Each golden output in turn is changed, so that the networks differ from it."""
    unit = np.array([[1.0, 0.0, 0.0]] * 3, np.float32)
    half = np.tile(np.array([1.0, 0.01, 0.0, 0.0], np.float32), (3, 1))
    changes = {
        "metric_feature": (unit, r"metric feature is off by \S+, 0\.005 is allowed"),
        "rotation_quaternion_wxyz": (
            half,
            r"rotation is off by 1\.15 degrees, 5 millidegrees is allowed",
        ),
    }
    for number, (name, (value, message)) in enumerate(changes.items()):
        text, contents = int8_parts()
        contents["golden_images.npz"] = npz_bytes({**golden_arrays(contents), name: value})
        path = write_bundle(tmp_path / str(number), text, contents).path
        with pytest.raises(EngineError, match=message):
            Relocalizer.from_bundle(path, EngineOptions("onnxruntime", fallback="none"))


def test_a_precision_that_the_bundle_lacks(int8_bundle):
    fallen = Relocalizer.from_bundle(int8_bundle, EngineOptions(precision="float16"))
    assert fallen.engine.fell_back
    assert "no float16 network" in str(fallen.engine.refused[0])
    with pytest.raises(EngineError, match="no float16 network, only float32, int8: export with"):
        Relocalizer.from_bundle(int8_bundle, EngineOptions(precision="float16", fallback="none"))


def test_an_installed_engine_that_cannot_run_is_marked(int8_bundle, monkeypatch):
    """Installed TensorRT without a built engine is a reason for a warning; missing TensorRT is not."""
    monkeypatch.setattr("rgsiam_ros.engines.selection.why_not", lambda name: None)
    engines = Relocalizer.from_bundle(int8_bundle).engine
    assert [r.engine for r in engines.refused if r.installed][:1] == ["tensorrt"]
    monkeypatch.setattr("rgsiam_ros.engines.selection.why_not", lambda name: "not installed")
    engines = Relocalizer.from_bundle(int8_bundle).engine
    assert not [r for r in engines.refused if r.installed]


def test_non_finite_outputs_fail_the_self_test(tmp_path):
    zero = colour_absolute().replace(
        np.array([[1.0, 0.0, 0.0, 0.0]], np.float32).tobytes(), bytes(16)
    )
    path = broken(tmp_path, **{"absolute.int8_onnx": zero})
    with pytest.raises(
        EngineError, match="failed the self-test: the network's outputs are non-fini"
    ):
        Relocalizer.from_bundle(path, EngineOptions("onnxruntime", "int8", fallback="none"))


def test_each_precision_has_its_own_covariance(int8_bundle):
    traces = []
    for precision in ("float32", "int8"):
        options = EngineOptions("onnxruntime", precision)
        relocalizer = Relocalizer.from_bundle(int8_bundle, options, branch="absolute")
        traces.append(np.trace(relocalizer.estimate(flat_image(*LIVE)).covariance_66))
    assert traces[1] == pytest.approx(4.0 * traces[0])


def test_a_network_of_single_images_takes_no_batches(int8_bundle):
    with pytest.raises(
        EngineError, match=r"onnxruntime float32: failed the self-test: input image"
    ):
        Relocalizer.from_bundle(int8_bundle, EngineOptions(batch=8))


def test_an_unknown_fallback_is_refused(int8_bundle):
    with pytest.raises(EngineError, match="engine_fallback is 'maybe': choose one of auto, none"):
        Relocalizer.from_bundle(int8_bundle, EngineOptions(fallback="maybe"))


def test_verify_reports_every_engine(int8_bundle):
    bundle = Bundle.load(int8_bundle)
    network = absolute_network(bundle)
    rows = benchmark_engines(bundle, EngineOptions(), network)
    served = {(row.engine, row.precision): row for row in rows if not row.problem}
    assert ("onnxruntime", "float32") in served
    assert all(len(row.problem) > 20 for row in rows if row.problem)
    named = benchmark_engines(
        bundle, EngineOptions("onnxruntime"), network
    )  # int8 whatever the CPU
    assert [row.precision for row in named] == ["int8", "float32"]
    row = named[0]
    assert row.differences.position_m == pytest.approx(0.1, abs=1e-3)
    assert 0.0 < row.inference_ms[0] <= row.inference_ms[1]


def test_each_precision_uses_its_own_map_features(tmp_path):
    """The int8 metric features are changed: only in int8 the map looks different."""
    text, contents = int8_parts()
    with np.load(io.BytesIO(contents["map_features.npz"])) as stored:
        arrays = dict(stored)
    arrays["metric_feature_ND"] = -arrays["metric_feature_ND"]
    contents["map_features.int8.npz"] = npz_bytes(arrays)
    path = write_bundle(tmp_path / "changed", text, contents).path
    distance = {}
    for precision in ("float32", "int8"):
        relocalizer = Relocalizer.from_bundle(path, EngineOptions("onnxruntime", precision))
        distance[precision] = relocalizer.estimate(flat_image(*LIVE)).quality.feature_distance
    assert distance["float32"] < 0.5
    assert distance["int8"] > 1.5
