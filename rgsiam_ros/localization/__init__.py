"""One image in, one pose out: the relocalizer and its two branches."""
