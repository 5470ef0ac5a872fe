"""From an encoded image to the network's input, and the camera model behind it."""
