"""One kernel for a student's code: run a cell, ask about an object, survive what it does.

The kernel is not trusted. Its messages are bounded in size, its requests in time, and it may end at
any moment; then `Died` says why, and the next call starts a new kernel.

There are two ways to it. Cells travel over Jupyter's channels: a reply comes on `shell`, outputs on
`iopub`. Questions of checks, which are many and may be large, travel over a socket of our own, the
line (`wire.line`).
"""

import contextlib
import os
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import nbformat
import zmq
from jupyter_client.client import KernelClient
from jupyter_client.manager import KernelManager
from nbformat import NotebookNode
from zmq.utils.monitor import recv_monitor_message

from lab_grader.running.bounds import WATCH_SECONDS, Guard, Patience
from lab_grader.running.errors import error_output
from lab_grader.running.outputs import OUTPUTS, Outputs
from lab_grader.sandbox.limits import Limits
from lab_grader.sandbox.place import Sandbox, Unconfined
from lab_grader.sandbox.server import START_SECONDS
from lab_grader.wire import line

PATIENCE_SECONDS = 5  # for an interrupt to work, and for the last output to arrive
ASK_SECONDS = 0.05  # between two questions whether it still runs
END_SECONDS = 1  # for a process to be gone once its sockets are closed

# Reading a message raises these if its form is not Jupyter's.
NO_MESSAGE = (
    *(AttributeError, KeyError, RecursionError, TypeError, ValueError),
    nbformat.ValidationError,
)
INSIDE = "__import__('lab_grader.wire.inside').wire.inside"


class Died(Exception):
    """The kernel ended or was ended; its text says why, as a student may read it."""


class EndedBefore(Died):
    """The kernel ended, and what it was asked may be innocent.

    It had not begun to do that, or was found to use too much at the first look since then: that may
    come of what it had been asked before.
    """


class CannotStart(Exception):
    """A kernel could not be started, which is no student's fault, so nothing is marked."""


class TimedOut(Exception):
    """The kernel took too long; it was interrupted and continues."""


class RemoteError(Exception):
    """The student's process raised this outside of the student's own code.

    In a notebook the same error would come out of the check.
    """

    def __init__(self, name: str, text: str) -> None:
        super().__init__(text)
        self.remote_name = name


class Kernel:
    """A kernel in which certain files are hidden. Use it as a context manager.

    Args:
        place: where it runs.
        hidden: files and folders of the lab that the student's code must not use.
        limits: what it may use.
    """

    def __init__(self, place: Sandbox | Unconfined, hidden: frozenset[str], limits: Limits) -> None:
        self.place, self.hidden, self.limits = place, hidden, limits
        self._manager: KernelManager | None = None
        self._client: KernelClient | None = None
        self._line: line.Line | None = None
        self._cuts: dict[str, zmq.Socket] = {}  # tell when a channel's connection is cut
        self._guard: Guard | None = None
        self._busy = False  # whether it has begun to do what it was asked last
        self._asked_at = self._watched_at = 0.0  # on the monotonic clock

    def __enter__(self) -> "Kernel":
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def run(self, source: str, room: int) -> list[NotebookNode]:
        """Run a cell; return its outputs, including an error that it raised.

        Args:
            room: how many bytes of output are kept; a line says so if there were more.

        Raises:
            Died: the cell ended the kernel, or had to be ended with it.
        """
        outputs = Outputs(room)
        try:
            self._execute(source, {}, outputs.add)
        except (TimedOut, RemoteError) as error:
            name = "TimedOut" if isinstance(error, TimedOut) else error.remote_name
            outputs.kept.append(error_output(name, str(error)))
        return outputs.kept

    def exchange(self, question: bytes, printed: Callable[[str], None]) -> bytes:
        """Send a packed question over the line; return the packed answer of `wire.inside`.

        Args:
            printed: called with what the student's code prints meanwhile.

        Raises:
            Died: the student's code ended the kernel, or had to be ended with it.
            TimedOut: it took too long.
            RemoteError: the question could not be answered.
        """
        self._prepare()
        try:
            self._line.send(line.QUESTION, question)
        except OSError:
            self._end_of_line("it does not accept questions")
        patience = Patience(self.limits.cell_seconds)
        while True:
            self._look(patience)
            try:
                message = self._line.receive(WATCH_SECONDS)
            except line.NoMessage as error:
                self._end_of_line(str(error))
            match message:
                case None:
                    pass
                case line.BEGUN, _:
                    self._busy = True
                case line.PRINTED, text:
                    printed(text.decode(errors="replace"))
                case _ if patience.interrupted:
                    raise TimedOut(patience.exceeded)
                case line.ANSWER, answer:
                    return answer
                case line.ERROR, described:
                    name, _, why = described.decode(errors="replace").partition(": ")
                    raise RemoteError(name[:100], why[:1000])
                case kind, _:
                    self._end_of_line(f"a message of kind {kind}")

    def _end_of_line(self, why: str) -> NoReturn:
        """End the kernel because its line is of no more use, and say why."""
        self._wait_for_its_end()
        self._die(f"its process sent something that is not a message ({why})")

    def _wait_for_its_end(self) -> None:
        """Give a process that may be ending a moment: it closes its sockets first.

        Raises:
            Died: it has ended, which is the reason why they are closed.
        """
        deadline = time.monotonic() + END_SECONDS
        while self.place.kernel_runs() and time.monotonic() < deadline:
            time.sleep(0.01)
        self._watch()

    def start_afresh(self) -> None:
        """Let the next cell find nothing of the last notebook.

        Its variables are removed. If it changed anything else, the kernel ends, and the next one is
        a new process.
        """
        try:
            if self._manager and self._evaluate(f"{INSIDE}.fresh_start()") == "True":
                return
        except (Died, TimedOut, RemoteError):
            pass  # a process that cannot even do this is not used again
        self.stop()

    def _evaluate(self, expression: str, seconds: float | None = None) -> str:
        """Return the `repr` of an expression's value in the student's process."""
        match self._execute("", {"value": expression}, lambda _: None, seconds):
            case {"user_expressions": {"value": {"data": {"text/plain": str(text)}}}}:
                return text
            case {"user_expressions": {"value": {"ename": name, "evalue": why}}}:
                raise RemoteError(str(name)[:100], str(why)[:1000])
            case _:
                raise RemoteError("NoAnswer", "the notebook's process gave no answer")

    def ask_whether_it_runs(self) -> None:
        """Make sure that the kernel still takes requests after the last one.

        It is asked for a moment, until what it uses was looked at, so that anything a cell left
        behind to end the kernel does so now. On a machine that does not come to look, the time of a
        cell ends this.

        Raises:
            Died: it does not.
        """
        began = time.monotonic()
        most = Patience(self.limits.cell_seconds)
        try:
            while time.monotonic() < began + WATCH_SECONDS or (
                self._guard.fine_at < began and not most.is_over()
            ):
                with contextlib.suppress(RemoteError):  # an answer of whatever form
                    self._evaluate("None")
                time.sleep(ASK_SECONDS)
        except EndedBefore as death:
            raise Died(str(death)) from death
        except TimedOut:
            self._die("its process did not answer any more")

    def stop(self) -> None:
        """End the kernel, if there is one; the next call starts a new one."""
        if self._manager is None:
            return
        self._guard.end()
        manager, self._manager = self._manager, None
        client, self._client = self._client, None
        end, self._line = self._line, None
        with contextlib.ExitStack() as steps:  # the last one first, and all of them whatever fails
            # Its destructor would wait for messages that nobody takes.
            steps.callback(manager.context.destroy, linger=0)
            steps.callback(manager.cleanup_resources)
            steps.callback(self.place.stop_kernel)
            if client is not None:
                steps.callback(client.stop_channels)
            if end is not None:
                steps.callback(end.close)

    def start(self) -> None:
        """Start the kernel, unless it is running.

        Raises:
            CannotStart: it did not start.
        """
        if self._manager is not None:
            return
        context = zmq.Context()
        context.setsockopt(zmq.MAXMSGSIZE, self.limits.message_bytes)
        context.setsockopt(zmq.RCVHWM, 16)
        context.setsockopt(zmq.SNDTIMEO, 1000 * PATIENCE_SECONDS)  # its end may be gone
        self._manager = self.place.manager(self.hidden, context=context)
        self._guard = Guard(self.place, self.limits)
        try:
            self._manager.start_kernel(cwd=str(self.place.given))
            self._client = self._manager.client(context=context)
            self._client.start_channels(stdin=False, hb=False)
            for name in ("shell", "iopub"):
                channel = getattr(self._client, f"{name}_channel").socket
                self._cuts[name] = channel.get_monitor_socket(zmq.EVENT_DISCONNECTED)
            self._connect()
        except (RuntimeError, OSError, Died, TimedOut, RemoteError) as error:
            why = f"a kernel did not start: {error}{self._last_words()}"
            self.stop()
            raise CannotStart(why) from error

    def _connect(self) -> None:
        """Wait for the kernel, and lay a line for questions to it.

        Raises:
            OSError: it did not connect to the line.
        """
        # Once one message has come on "iopub", none that follows is missed. The first is to welcome
        # us, but if we subscribe while the kernel is in the middle of sending something, ipykernel
        # does not notice, and says nothing until it is asked.
        deadline = time.monotonic() + START_SECONDS
        while (channel := self._receive()[0]) != "iopub":
            if not channel:
                self._client.kernel_info()
            self._watch()
            if time.monotonic() > deadline:
                raise TimedOut(f"it did not respond within {START_SECONDS} s")
        here, there = self.place.line()
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(str(here))
            os.chmod(here, 0o666)  # only the kernel and we can enter the folder
            listener.listen(1)
            listener.settimeout(PATIENCE_SECONDS)
            # Imports PyTorch, and notes how the process is at its start.
            begin = f"{INSIDE}.begin({there!r}, {self.limits.message_bytes})"
            self._evaluate(begin, START_SECONDS)
            end, _ = listener.accept()
        Path(here).unlink()
        self._line = line.Line(end, self.limits.message_bytes, self.limits.cell_seconds)

    def _prepare(self) -> None:
        """Be ready to send a request."""
        self.start()
        self._busy, self._asked_at = False, time.monotonic()
        self._watch()

    def _execute(
        self,
        source: str,
        expressions: dict[str, str],
        on_output: Callable[[dict], None],
        seconds: float | None = None,
    ) -> dict[str, Any]:
        """Send a request; hand on its outputs; return the content of the reply.

        A request is done when its reply has come and the kernel says that it is idle, in any order.
        """
        self._prepare()
        for name in self._cuts:
            self._connect_again(name)
        try:
            request = self._client.execute(
                source, store_history=False, allow_stdin=False, user_expressions=expressions
            )
        except zmq.Again:
            self._die("its process takes no requests", EndedBefore)
        reply, idle = None, False
        patience = Patience(seconds or self.limits.cell_seconds)
        while reply is None or not idle:
            if reply is not None and patience.is_over():
                break  # the outputs were too large to be received, and "idle" with them
            self._look(patience)
            if self._connect_again("iopub"):
                idle = True  # it may have been said, and was not received
            if self._connect_again("shell"):
                most = f"more than {self.limits.message_bytes >> 20} MB"
                raise RemoteError("TooLarge", f"an error or another reply of {most} is left out")
            channel, message = self._receive()
            try:
                if message is None or message["parent_header"].get("msg_id") != request:
                    continue
                content = message["content"]
                match channel, message["msg_type"]:
                    case "shell", _ if reply is None:  # a second reply gives it no more time
                        reply = content
                        patience.allow(PATIENCE_SECONDS)
                    case "iopub", "status":
                        self._busy = True
                        idle = content["execution_state"] == "idle"
                    case "iopub", kind if kind in OUTPUTS:
                        on_output(message)
            except NO_MESSAGE as error:
                self._die(f"its process sent something that is not output ({error!r})")
        if patience.interrupted:
            raise TimedOut(patience.exceeded)
        return reply

    def _connect_again(self, name: str) -> bool:
        """Return whether a channel's connection was cut, and make it again.

        A message that is too large cuts it, such as an error with a text of many megabytes. The
        kernel goes on, and what the cell did before stays.

        Raises:
            Died: the kernel has ended.
        """
        cuts = self._cuts[name]
        if not cuts.poll(0):
            return False
        while cuts.poll(0):
            recv_monitor_message(cuts)
        self._wait_for_its_end()
        channel = getattr(self._client, f"{name}_channel").socket
        endpoint = channel.last_endpoint
        channel.disconnect(endpoint)  # else it counts as connected
        channel.connect(endpoint)
        return True

    def _receive(self) -> tuple[str, dict[str, Any] | None]:
        """Return the next message and its channel, or None after a short while without one."""
        channels = {"iopub": self._client.iopub_channel, "shell": self._client.shell_channel}
        poller = zmq.Poller()
        for channel in channels.values():
            poller.register(channel.socket, zmq.POLLIN)
        ready = dict(poller.poll(int(1000 * WATCH_SECONDS)))
        for name, channel in channels.items():
            if channel.socket in ready:
                try:
                    return name, channel.get_msg(timeout=0)
                except Exception as error:  # what came can be anything but a message
                    self._die(f"its process sent something that is not a message ({error})")
        return "", None

    def _look(self, patience: Patience) -> None:
        """Watch the kernel, and interrupt or end it if the time of its request is over.

        It is called after every message, so a kernel that sends many gains no time by it.
        """
        if time.monotonic() > self._watched_at + WATCH_SECONDS:
            self._watch()
        if patience.is_over():
            if patience.interrupted:
                self._die(f"{patience.exceeded} and could not be interrupted")
            with contextlib.suppress(RuntimeError):  # it has just ended, which `_watch` will notice
                self._manager.interrupt_kernel()
            patience.interrupted = True
            patience.allow(PATIENCE_SECONDS)

    def _watch(self) -> None:
        """Notice if the kernel has ended, or was ended because it used more than it may.

        Raises:
            Died: it has ended. `EndedBefore` if that may not be what it was asked last.
        """
        self._watched_at = time.monotonic()
        kind = Died if self._busy else EndedBefore
        if self._guard.exceeded:
            was_fine = self._guard.fine_at > self._asked_at
            self._die(self._guard.exceeded, kind if was_fine else EndedBefore)
        if not self.place.kernel_runs():
            why = self._guard.exceeded or self.place.how_it_ended() + self._last_words()
            self._die(why, kind)

    def _last_words(self) -> str:
        text = self.place.last_words()
        return f" ({text})" if text else ""

    def _die(self, why: str, kind: type[Died] = Died) -> NoReturn:
        self.stop()
        raise kind(why)
