"""The errors that wrong input can cause. Each message says what is wrong, where, and what to do."""


class RgsiamError(Exception):
    """The base class of all errors that are caused by the input and not by the program."""


class BundleError(RgsiamError):
    """A bundle is damaged, incomplete, or not supported."""


class ImageError(RgsiamError):
    """An image cannot be decoded or relocalized."""

    def __init__(self, message: str, cause: str = "unusable") -> None:
        """cause: one word for the kind of error, under which the node counts rejected images."""
        super().__init__(message)
        self.cause = cause


class CameraError(RgsiamError):
    """A camera model is invalid, or does not fit the image or the bundle."""


class EngineError(RgsiamError):
    """An inference engine is missing, or failed."""


class EngineNotBuiltError(EngineError):
    """An engine must be built on this machine before it can be used."""


class TransformUnavailableError(RgsiamError):
    """No chain of transforms joins two frames at the wanted time."""


class BagError(RgsiamError):
    """A recording is missing, damaged, or lacks a topic."""


class DatasetError(RgsiamError):
    """A dataset is missing, malformed, or has unusable labels."""


class GeoreferenceError(RgsiamError):
    """The GPS fixes do not determine where the map lies on the Earth."""


class FusionError(RgsiamError):
    """The configuration of the robot_localization filters cannot work."""


class ResultsError(RgsiamError):
    """A results folder cannot be written."""


class BuildError(RgsiamError):
    """A build cannot start, or one of its stages failed."""
