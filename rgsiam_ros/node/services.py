"""``~/reset`` and ``~/enable``."""

from __future__ import annotations

from collections.abc import Callable

from rclpy.node import Node
from std_srvs.srv import SetBool, Trigger


class Services:
    """Answers in the executor's thread."""

    def __init__(self, node: Node, reset: Callable[[], str], enable: Callable[[bool], str]) -> None:
        """reset, enable: do it and say what was done."""
        self._reset, self._enable = reset, enable
        node.create_service(Trigger, "~/reset", self._on_reset)
        node.create_service(SetBool, "~/enable", self._on_enable)

    def _on_reset(self, _: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        response.success, response.message = True, self._reset()
        return response

    def _on_enable(self, request: SetBool.Request, response: SetBool.Response) -> SetBool.Response:
        response.success, response.message = True, self._enable(bool(request.data))
        return response
