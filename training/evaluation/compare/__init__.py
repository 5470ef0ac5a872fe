"""Presets of other methods beside ours, trained and measured alike."""
