"""One bad event must not end a program: its error is logged, and the next event is executed."""

from __future__ import annotations

import functools
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from rcl_interfaces.msg import SetParametersResult
from rclpy.executors import SingleThreadedExecutor
from rclpy.lifecycle import State, TransitionCallbackReturn
from rclpy.node import Node

from rgsiam_ros.node.log_throttle import SHOWN, LogThrottle


@contextmanager
def errors_in_log(node: Node, throttle: LogThrottle, consequence: str) -> Iterator[None]:
    """Log an error instead of raising it. consequence: what it costs, for the log."""
    try:
        yield
    except Exception as error:
        _log(node, throttle, consequence, error)


def _log(node: Node, throttle: LogThrottle, consequence: str, error: Exception) -> None:
    place = traceback.extract_tb(error.__traceback__)[-1]
    if throttle.may_log(f"{consequence} {type(error).__name__} {place.filename}:{place.lineno}"):
        text = "".join(traceback.format_exception(error))
        node.get_logger().error(f"{consequence}:\n{text}")


class GuardedExecutor(SingleThreadedExecutor):
    """Logs the errors of callbacks, and of messages that cannot be read, and goes on."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self._throttle = LogThrottle()
        self._source = ""

    def spin_once(self, timeout_sec: float | None = None) -> None:
        """Execute one event. Raises an error only when ROS was shut down."""
        try:
            super().spin_once(timeout_sec)
        except Exception as error:
            if not (self.context.ok() and self.get_nodes()):
                raise
            self._log(self.get_nodes()[0], error)

    def _make_handler(self, entity: Any, node: Node, take: Callable[[Any], Any], *rest: Any) -> Any:
        """rclpy never waits again for an entity whose `take` raises, as it does for a damaged message."""

        def guarded(taken: Any) -> Any:
            try:
                self._source = name_of(entity)
                return take(taken)
            except Exception as error:
                self._log(node, error)
                return None

        return super()._make_handler(entity, node, guarded, *rest)

    def _log(self, node: Node, error: Exception) -> None:
        _log(node, self._throttle, f"an event of {self._source} is ignored", error)


def name_of(entity: Any) -> str:
    """The topic or service of an entity of rclpy, else its kind."""
    names = (getattr(entity, kind, "") for kind in ("topic_name", "srv_name"))
    return next((name for name in names if name), type(entity).__name__.lower())


def answer_always(node: Node) -> None:
    """Let each service of the node answer a request that raises an error.

    The response then has its defaults, which say that nothing succeeded, and where it has room, the reason.
    """
    throttle = LogThrottle()
    by_name = {name_of(service).rsplit("/", 1)[-1]: service for service in node.services}
    if "change_state" in by_name:
        change = by_name["change_state"]
        change.callback = _if_possible(change.callback, by_name["get_available_transitions"])
    for service in node.services:
        service.callback = _answering(node, throttle, name_of(service), service.callback)


def _if_possible(change: Callable[[Any, Any], Any], available: Any) -> Callable[[Any, Any], Any]:
    """A change of state, if the state allows it. rcl itself would log each refusal, however frequent."""

    def change_if_possible(request: Any, response: Any) -> Any:
        wanted, answer = request.transition, available.srv_type.Response()
        offered = [t.transition for t in available.callback(None, answer).available_transitions]
        if not any(t.label == wanted.label if wanted.label else t.id == wanted.id for t in offered):
            raise ValueError(
                f"transition {wanted.label[:SHOWN] or wanted.id} is not possible now; possible are "
                f"{', '.join(t.label for t in offered) or 'none'}"
            )
        return change(request, response)

    return change_if_possible


def _answering(
    node: Node, throttle: LogThrottle, name: str, callback: Callable[[Any, Any], Any]
) -> Callable[[Any, Any], Any]:
    def answer(request: Any, response: Any) -> Any:
        try:
            return callback(request, response)
        except Exception as error:
            _log(node, throttle, f"{name} refuses a request", error)
            return _refusal(request, type(response)(), f"{type(error).__name__}: {error}")

    return answer


def _refusal(request: Any, response: Any, reason: str) -> Any:
    result = SetParametersResult(successful=False, reason=reason)
    if hasattr(response, "results"):  # SetParameters: one for each parameter
        response.results = [result for _ in request.parameters]
    elif isinstance(getattr(response, "result", None), SetParametersResult):
        response.result = result
    elif hasattr(response, "message"):
        response.message = reason
    return response


def transition(callback: Callable[[Any, State], TransitionCallbackReturn]) -> Callable[..., Any]:
    """Log an error of a lifecycle node's transition, keep it as `transition_error`, and return ERROR.

    rclpy drops the error without a word.
    """

    @functools.wraps(callback)
    def logged(node: Any, state: State) -> TransitionCallbackReturn:
        try:
            return callback(node, state)
        except Exception as error:
            name = callback.__name__.removeprefix("on_")
            node.transition_error = f"cannot {name}: {type(error).__name__}: {error}"
            node.get_logger().error(node.transition_error)
            node.get_logger().info("".join(traceback.format_exception(error)))
            return TransitionCallbackReturn.ERROR

    return logged
