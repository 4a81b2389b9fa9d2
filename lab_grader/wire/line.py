"""The line between the grader and a student's process: messages on a socket, each with a kind.

The checks of a submission ask about seven hundred questions. A message of Jupyter's, with its
four parts, dates and signature, takes both sides several milliseconds; one of these, a tenth.
"""

import select
import socket
import struct

HEADER = struct.Struct("!BQ")  # the kind, and how many bytes follow
PIECE = 1 << 20  # bytes of a message that are read at a time

# The grader sends a QUESTION and gets BEGUN, PRINTED (output meanwhile), and ANSWER or ERROR.
QUESTION, BEGUN, PRINTED, ANSWER, ERROR = range(5)


class NoMessage(Exception):
    """What arrived is not a message, or the other end has closed the line."""


class Line:
    """One end of the line.

    Args:
        end: a connected stream socket.
        most_bytes: the size limit of a message; a larger one is not received.
        seconds: how long to wait for the other end to accept a message; without limit if None.
    """

    def __init__(self, end: socket.socket, most_bytes: int, seconds: float | None = None) -> None:
        end.settimeout(seconds)
        self._socket, self._most_bytes = end, most_bytes
        self._arrived = bytearray()

    def fileno(self) -> int:
        """Return the socket's descriptor, for `select` and event loops."""
        return self._socket.fileno()

    def close(self) -> None:
        """Close this end."""
        self._socket.close()

    def send(self, kind: int, content: bytes = b"") -> None:
        """Send a message.

        Raises:
            OSError: the other end is gone, or does not accept it.
        """
        self._socket.sendall(HEADER.pack(kind, len(content)) + content)

    def receive(self, seconds: float | None) -> tuple[int, bytes] | None:
        """Return the kind and the content of the next message, or None if it does not come in time.

        Each call reads at most one piece of a message, so that the other end cannot keep it busy.

        Raises:
            NoMessage: see the class.
        """
        message = self._taken()
        if message is None and select.select([self._socket], [], [], seconds)[0]:
            try:
                piece = self._socket.recv(PIECE)
            except OSError as error:
                raise NoMessage(f"it cannot be read: {error}") from error
            if not piece:
                raise NoMessage("it closed the line")
            self._arrived += piece
            message = self._taken()
        return message

    def _taken(self) -> tuple[int, bytes] | None:
        if len(self._arrived) < HEADER.size:
            return None
        kind, size = HEADER.unpack_from(self._arrived)
        if size > self._most_bytes:
            raise NoMessage(f"{size:,} bytes are more than {self._most_bytes:,}")
        end = HEADER.size + size
        if len(self._arrived) < end:
            return None
        content = bytes(self._arrived[HEADER.size : end])
        del self._arrived[:end]
        return kind, content
