"""A pair of hotpair with a directory resource; the program is the one that HOTPAIR_BINARY names."""

import os
import subprocess

from driver import Driver, Failure

PORT = 7788
BINARY = os.environ.get("HOTPAIR_BINARY", "")


class Product(Driver):
    PROGRAM = BINARY
    NOTE = 'kind = "directory" with its defaults, encryption = "none", no arbiter'

    @classmethod
    def missing(cls):
        if not BINARY:
            return "HOTPAIR_BINARY names no program"
        return None if os.access(BINARY, os.X_OK) else f"cannot run {BINARY}"

    def version(self):
        done = subprocess.run([BINARY, "--version"], capture_output=True, text=True, check=True)
        return done.stdout.split()[-1]

    def prepare(self):
        world = self.world
        lines = ['cluster = "bench"', "[link]", 'encryption = "none"']
        for side in ("source", "target"):
            home = world.state(side)
            (home / "hotpair").mkdir(mode=0o700)
            printed = world.run(side, BINARY, "identity", "--state-dir", home / "hotpair")
            identity = next((word for word in printed.split() if word.startswith("sha256//")), None)
            if identity is None:
                raise Failure(f"hotpair identity printed no identity: {printed.strip()}")
            lines += [f"[node.{world.names[side]}]", f'replication = "{world.addresses[side]}:{PORT}"',
                      f'identity = "{identity}"', f'state_dir = "{home}/hotpair"', f'control = "{home}/hotpair/control"']
        lines += ["[resource.r]", 'kind = "directory"', f'path = "{world.source}"',
                  f"[resource.r.on.{world.names['target']}]", f'path = "{world.target}"']
        self.config = world.place / "hotpair.toml"
        self.config.write_text("\n".join(lines) + "\n")
        self.config.chmod(0o600)
        self._on("target", "init", "r", "--from", "peer")
        self._serve("target")
        world.wait_port("target", PORT)

    def start(self):
        self._on("source", "init", "r", "--from", "this")
        self._serve("source")
        self.world.wait(self._is_promoted, 60, "the promotion")

    def settle(self, timeout):
        self._on("source", "sync", "r", "--wait", "--timeout", f"{timeout}s")

    def _is_promoted(self):
        try:
            self._on("source", "promote", "r")
        except Failure:
            return False
        return True

    def _serve(self, side):
        self.world.spawn(side, BINARY, "run", *self._where(side))

    def _on(self, side, *argv):
        return self.world.run(side, BINARY, *argv, *self._where(side))

    def _where(self, side):
        return ["--config", self.config, "--node", self.world.names[side]]
