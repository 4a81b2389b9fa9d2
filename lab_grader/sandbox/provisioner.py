"""What Jupyter calls to start and end a kernel in a `Sandbox`: a kernel provisioner."""

import asyncio
import json
from pathlib import Path
from typing import Any

from jupyter_client.provisioning import KernelProvisionerBase
from traitlets import Any as Anything
from traitlets import Instance

from lab_grader.sandbox.place import Sandbox


class SandboxProvisioner(KernelProvisionerBase):
    """Starts a kernel in a `Sandbox`, which gives it to the kernel's manager as a setting."""

    sandbox = Instance(Sandbox)
    hidden = Anything(help="the files that the kernel must not see")

    @property
    def has_process(self) -> bool:
        """Whether there is a kernel."""
        return self.sandbox.kernel_runs()

    async def pre_launch(self, **kwargs: Any) -> dict[str, Any]:
        """Choose where the kernel's sockets are."""
        manager = self.parent
        manager.transport, manager.ip = "ipc", str(self.sandbox.sockets / "k")
        manager.cache_ports = False
        manager.connection_file = str(self.sandbox.folder / "connection.json")
        manager.write_connection_file()
        return await super().pre_launch(cmd=[], **kwargs)

    async def launch_kernel(self, cmd: list[str], **kwargs: Any) -> dict[str, Any]:
        """Start the kernel."""
        written = Path(self.parent.connection_file).read_text("utf-8")
        self.sandbox.start_kernel(json.loads(written), self.hidden)
        return self.parent.get_connection_info()

    async def poll(self) -> int | None:
        """Return None while the kernel runs."""
        return None if self.sandbox.kernel_runs() else 1

    async def wait(self) -> int | None:
        """Return once the kernel has ended."""
        while self.sandbox.kernel_runs():
            await asyncio.sleep(0.05)
        return 1

    async def send_signal(self, signum: int) -> None:
        """End the kernel, whatever the signal: it is interrupted by a message instead."""
        self.sandbox.stop_kernel()

    async def kill(self, restart: bool = False) -> None:
        """End the kernel."""
        self.sandbox.stop_kernel()

    async def terminate(self, restart: bool = False) -> None:
        """End the kernel."""
        self.sandbox.stop_kernel()

    async def cleanup(self, restart: bool = False) -> None:
        """Do nothing: the sandbox removes what a kernel leaves."""
