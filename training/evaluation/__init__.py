"""Measure networks and bundles on held-out frames and datasets, and compare with other methods."""
