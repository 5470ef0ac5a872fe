"""The Siamese network and its parts: backbone, neck, heads and relative pose unit."""
