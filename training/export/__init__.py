"""From a run to a bundle: ONNX, reduced precisions, golden images, calibration."""
