"""What is kept of a cell's outputs, which may be of any form and size."""

import json
from typing import Any

import nbformat
from nbformat import NotebookNode

OUTPUTS = ("stream", "display_data", "execute_result", "error")
# What is kept of an output: no HTML or script of a student's in an instructor's browser, and
# nothing that may be of any form.
SHOWN = ("text/plain", "image/png", "image/jpeg")
SIZES = ("width", "height")  # of a picture, in pixels


class Outputs:
    """The outputs of a cell, as far as there is room for them.

    Attributes:
        kept: as a notebook has them, with the texts of one stream in one output.
    """

    def __init__(self, room: int) -> None:
        self.kept: list[NotebookNode] = []
        self._most = self._room = room  # in bytes

    def add(self, message: dict[str, Any]) -> None:
        """Keep the output in a message; if it is too large, keep a line that says so, once."""
        if self._room < 0:
            return
        output = _output(message)
        self._room -= len(json.dumps(output))
        if self._room < 0:
            text = f"(more than {self._most:,} bytes of output; cut here)\n"
            self.kept.append(nbformat.v4.new_output("stream", name="stdout", text=text))
            return
        last = self.kept[-1] if self.kept else {}
        if output.output_type == "stream" and last.get("name") == output.name:
            last.text += output.text
        else:
            self.kept.append(output)


def _output(message: dict[str, Any]) -> NotebookNode:
    """Return an output with what is shown of it; without the rest, whatever that is."""
    kind, content = message["msg_type"], message["content"]
    if kind not in ("display_data", "execute_result"):
        return nbformat.v4.output_from_msg(message)
    data = {k: v for k, v in content["data"].items() if k in SHOWN and isinstance(v, str)}
    metadata = {}
    for picture in data:
        sizes = content["metadata"].get(picture)
        if isinstance(sizes, dict):
            metadata[picture] = {k: sizes[k] for k in SIZES if isinstance(sizes.get(k), int)}
    count = {"execution_count": None} if kind == "execute_result" else {}
    return nbformat.v4.new_output(kind, data=data, metadata=metadata, **count)
