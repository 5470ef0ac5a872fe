"""Local features: the network that is shipped with the package, keypoints and descriptors, matches, and a
global feature made of them. Nothing here needs ROS, torch or an inference engine.
"""
