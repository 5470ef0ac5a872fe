"""From datasets to batches: decoding, splits, pairs, augmentation, map images."""
