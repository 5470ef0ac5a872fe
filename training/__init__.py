"""Offline: datasets, pairs, network, losses, training, evaluation, export. Needs torch."""
