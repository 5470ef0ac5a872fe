"""Run a stage in a process of its own: its output is shown and kept, and it ends with the build."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_PR_SET_PDEATHSIG = 1


@dataclass(frozen=True)
class Ended:
    """How a process ended, and what it took."""

    status: int
    """Exit status; below 0: the number of the signal that ended it."""
    cpu_s: float
    memory_mb: float
    """Largest resident memory."""


def run_process(command: Sequence[str], log: Path, lock: int) -> Ended:
    """Run a command. What it prints is shown; messages are kept in the file `log`, and without a terminal all is.

    In a terminal the process draws its own progress bars. lock: a file that the process keeps open. After Ctrl-C the
    process gets one SIGINT and is waited for, after a second one it is killed; KeyboardInterrupt is then raised. If this
    process dies, the other one gets SIGTERM.
    """
    terminal = sys.stdout.isatty()
    with _Interrupts() as interrupts, log.open("ab") as kept:
        child = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=None if terminal else subprocess.PIPE,
            stderr=subprocess.PIPE if terminal else subprocess.STDOUT,
            pass_fds=(lock,),
            preexec_fn=_prepare,  # noqa: PLW1509 this program has one thread
        )
        stream = child.stderr if terminal else child.stdout
        shown = sys.stderr if terminal else sys.stdout
        assert stream is not None
        try:
            interrupts.forward_to(child.pid)
            for line in iter(stream.readline, b""):
                kept.write(line)
                kept.flush()
                shown.write(line.decode(errors="replace"))
                shown.flush()
            _, status, usage = os.wait4(child.pid, 0)
        except BaseException:
            child.terminate()
            child.wait()
            raise
        child.returncode = os.waitstatus_to_exitcode(status)
    if interrupts.count:
        raise KeyboardInterrupt
    return Ended(child.returncode, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024.0)


class _Interrupts:
    """Counts SIGINT instead of raising KeyboardInterrupt, which is lost in the moment of a fork, and forwards them."""

    def __init__(self) -> None:
        self.count = 0
        self._process: int | None = None
        self._before: Any = None

    def __enter__(self) -> _Interrupts:
        if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:  # as of a job in the background
            self._before = signal.signal(signal.SIGINT, self._on_signal)
        return self

    def __exit__(self, *_: object) -> None:
        if self._before is not None:
            signal.signal(signal.SIGINT, self._before)

    def forward_to(self, process: int) -> None:
        """From now on, and also the signals that came before."""
        self._process = process
        if self.count:
            self._send()

    def _on_signal(self, *_: object) -> None:
        self.count += 1
        if self._process is not None:
            self._send()

    def _send(self) -> None:
        assert self._process is not None
        with suppress(ProcessLookupError):
            os.kill(self._process, signal.SIGINT if self.count == 1 else signal.SIGKILL)


def _prepare() -> None:
    """In the new process: its own group, so that Ctrl-C reaches it once, and SIGTERM when the build dies."""
    os.setpgid(0, 0)
    with suppress(OSError, AttributeError):  # only Linux has it
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
