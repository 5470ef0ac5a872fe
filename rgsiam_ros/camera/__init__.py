"""The camera model, and the steps from an encoded image to the network's input."""
