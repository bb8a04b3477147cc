"""Unison over a socket, in a loop of its own."""

import shutil

from driver import Driver

PORT = 5000


class Product(Driver):
    PACKAGES = ["unison"]
    PROGRAM = "unison"
    # Debian's package has no unison-fsmonitor, without which it cannot watch.
    REPEAT = "watch" if shutil.which("unison-fsmonitor") else "1"
    NOTE = f"over a socket, -repeat {REPEAT}, both sides may change" + (
        "" if REPEAT == "watch" else " (without unison-fsmonitor, which is not packaged, it cannot watch)")

    def prepare(self):
        self.world.spawn("target", "unison", "-socket", PORT, "-listen", self.world.addresses["target"])
        self.world.wait_port("target", PORT)

    def start(self):
        world = self.world
        world.spawn("source", "unison", world.source, f"socket://{world.addresses['target']}:{PORT}/{world.target}",
                    "-ui", "text", "-batch", "-dumbtty", "-confirmbigdel=false", "-owner", "-group", "-numericids",
                    "-times", "-perms", "-1", "-repeat", self.REPEAT)
