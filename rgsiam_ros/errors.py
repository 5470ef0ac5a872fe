"""The errors a user can cause. Each message says what is wrong, where, and what to do."""


class RgsiamError(Exception):
    """Base of every error that is the input's fault, not the program's."""


class BundleError(RgsiamError):
    """A bundle that cannot be trusted or understood."""


class ImageError(RgsiamError):
    """An image that cannot be decoded or relocalized."""

    def __init__(self, message: str, cause: str = "unusable") -> None:
        """cause: by which such images are counted, one word."""
        super().__init__(message)
        self.cause = cause


class CameraError(RgsiamError):
    """A camera model that is invalid or contradicts the image or the bundle."""


class EngineError(RgsiamError):
    """An inference engine that is missing or failed."""


class EngineNotBuiltError(EngineError):
    """An engine that has to be built on this machine first."""


class TransformUnavailableError(RgsiamError):
    """No chain of transforms joins two frames."""


class BagError(RgsiamError):
    """A recording that is missing, damaged, or lacks a topic."""


class DatasetError(RgsiamError):
    """A dataset that is missing, malformed, or holds unusable labels."""


class GeoreferenceError(RgsiamError):
    """Fixes that do not tell where the map is."""


class FusionError(RgsiamError):
    """A set-up of the filter that could not work."""


class ResultsError(RgsiamError):
    """A results folder that cannot be written."""
