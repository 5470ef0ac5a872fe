"""Messages `sensor_msgs/CameraInfo` of bags."""

import numpy as np

from support.bags import TYPES


def camera_info(width, height, focal, d=(), model="plumb_bob", p=None, roi=(0, 0, 0, 0), binning=0):
    """A CameraInfo with the principal point in the centre. p: focal length of P; roi: x, y, width, height."""
    header = TYPES.types["std_msgs/msg/Header"](
        stamp=TYPES.types["builtin_interfaces/msg/Time"](sec=1, nanosec=0), frame_id=""
    )
    x, y, roi_width, roi_height = roi
    region = TYPES.types["sensor_msgs/msg/RegionOfInterest"](
        x_offset=x, y_offset=y, width=roi_width, height=roi_height, do_rectify=False
    )
    return TYPES.types["sensor_msgs/msg/CameraInfo"](
        header=header,
        width=width,
        height=height,
        distortion_model=model,
        d=np.array(d, np.float64),
        k=intrinsics(width, height, focal).ravel(),
        r=np.eye(3).ravel(),
        p=np.hstack([intrinsics(width, height, p or focal), np.zeros((3, 1))]).ravel(),
        binning_x=binning,
        binning_y=binning,
        roi=region,
    )


def intrinsics(width, height, focal):
    return np.array([[focal, 0.0, width / 2], [0.0, focal, height / 2], [0.0, 0.0, 1.0]])
