"""What the tests of survival share: a script in a process of its own, and how that process must end."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap

FREE_THREADED = not getattr(sys, "_is_gil_enabled", lambda: True)()
FATAL = (
    "FATAL",
    "Fatal",
    "panicked",
    "PanicException",
    "abort",
    "Segmentation",
    "AddressSanitizer",
    "terminate called",
)


class Ended:
    """How a process ended, and what it wrote."""

    def __init__(self, status: int | str, out: str, err: str) -> None:
        self.status, self.out, self.err = status, out, err

    def __repr__(self) -> str:
        return f"{self.status}\n--- stdout\n{self.out[-4000:]}\n--- stderr\n{self.err[-4000:]}"

    @property
    def died(self) -> bool:
        """Whether it ended in a way that no program chooses."""
        return not isinstance(self.status, int) or any(word in self.err for word in FATAL)


def run(source: str, *arguments: object, timeout: float = 120, flags: tuple[str, ...] = (), **env: str) -> Ended:
    """Runs a script, and says how its process ended: by a number, a signal's name, or "a hang"."""
    command = [sys.executable, *flags, "-c", textwrap.dedent(source), *map(str, arguments)]
    # A debugger's or a developer's settings would write to stderr on their own.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")} | env
    pipes = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    # A session of its own, so that a hang ends with all its children: one that lived on would keep the pipes open.
    process = subprocess.Popen(command, **pipes, env=environment, text=True, start_new_session=True)
    try:
        out, err = process.communicate(timeout=timeout)
        status: int | str = process.returncode
        if process.returncode < 0:
            status = signal.Signals(-process.returncode).name
    except subprocess.TimeoutExpired:
        kill_group(process)
        out, err = process.communicate()
        status = "a hang"
    return Ended(status, out, err)


def kill_group(process: subprocess.Popen[str]) -> None:
    if sys.platform == "win32":
        process.kill()
    else:
        os.killpg(process.pid, signal.SIGKILL)


def lives(source: str, *arguments: object, out: str | None = None, **options: object) -> Ended:
    """Runs a script that must end with status 0 and, where given, write just this to stdout. What Python itself says of
    what is left at its exit, such as open event loops, may stand in stderr."""
    return lived(run(source, *arguments, **options), out)


def lived(ended: Ended, out: str | None = None) -> Ended:
    """The same for a script that has ended."""
    assert ended.status == 0, ended
    assert not ended.died, ended
    if out is not None:
        assert ended.out == out, ended
    return ended
