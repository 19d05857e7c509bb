"""A QMP client of a few lines: what QEMU itself says, for comparison."""

from __future__ import annotations

import json
import socket
from pathlib import Path
from types import TracebackType
from typing import Any, Self


class Monitor:
    """A connection to a QMP socket; it takes the one client place while it is open."""

    def __init__(self, path: Path) -> None:
        self._socket = socket.socket(socket.AF_UNIX)
        self._stream = self._socket.makefile("rw", encoding="utf-8")
        try:
            self._socket.connect(str(path))  # waits while the queue is full, which a time-out would turn into an error
            self._socket.settimeout(20)
            assert "QMP" in json.loads(self._stream.readline())
            self.execute("qmp_capabilities")
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Leave the one client place."""
        self._stream.close()
        self._socket.close()

    def execute(self, command: str, **arguments: Any) -> Any:
        """Return the answer to a QMP command; events in between are dropped."""
        self._stream.write(json.dumps({"execute": command, "arguments": arguments}) + "\n")
        self._stream.flush()
        while "event" in (reply := json.loads(self._stream.readline())):
            pass
        return reply["return"]

    def hmp(self, line: str) -> str:
        """Return the answer to a command of the human monitor."""
        return str(self.execute("human-monitor-command", **{"command-line": line}))
