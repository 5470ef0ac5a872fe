"""How good a pose is: covariance, quality figures, calibration, and the temporal gate."""
