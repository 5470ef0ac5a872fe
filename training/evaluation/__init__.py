"""Measure networks and bundles: held-out frames, datasets, look-alikes, other methods."""
