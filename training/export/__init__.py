"""Export a training run to a bundle: ONNX, reduced precisions, golden images, calibration."""
