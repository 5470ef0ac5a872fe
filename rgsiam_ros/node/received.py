"""An image message between its arrival and its turn."""

from __future__ import annotations

from dataclasses import dataclass, replace

from sensor_msgs.msg import CompressedImage, Image

from rgsiam_ros.node.messages import image_from_message
from rgsiam_ros.preprocessing import ImageBGR


@dataclass(frozen=True)
class Received:
    """An image message on its way."""

    message: Image | CompressedImage
    at: float
    """When it came, seconds of the monotonic clock."""
    decoded: ImageBGR | Exception | None = None
    """The image, or why there is none; None: not tried yet."""

    def decode(self) -> Received:
        """With its image, or with the error that `image` raises then."""
        if self.decoded is not None:
            return self
        try:
            return replace(self, decoded=image_from_message(self.message))
        except Exception as error:  # of any kind: it is told when the image's turn comes
            return replace(self, decoded=error)

    def image(self) -> ImageBGR:
        """``(H, W, 3)`` uint8 BGR. Raises ImageError."""
        found = self.decode().decoded
        if isinstance(found, Exception):
            raise found
        assert found is not None
        return found
