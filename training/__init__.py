"""The offline half of the project, which needs torch: data preparation, network, training, evaluation and
export of bundles. Imported as `rgsiam_training`.
"""
