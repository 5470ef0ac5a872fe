"""From datasets to batches: decoding, validation split, pairs, augmentation and choice of map images."""
