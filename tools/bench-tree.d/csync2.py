"""csync2 with its stand-alone server on the target, by one command for each change."""

from driver import Driver

PORT = 30865
CONFIG = """nossl * *;
group bench {{
  host alpha beta;
  key {key};
  include %tree%;
  auto none;
}}
prefix tree {{
  on alpha: {source};
  on beta: {target};
}}
"""


class Product(Driver):
    PACKAGES = ["csync2", "libsqlite3-0"]
    PROGRAM = "csync2"
    NOTE = "csync2 -x for each change, started at once, to csync2 -ii; nossl; SQLite"

    def prepare(self):
        world = self.world
        world.run("target", "csync2", "-k", world.place / "key")
        for side in ("source", "target"):
            (world.state(side) / "db").mkdir()
            (world.state(side) / "csync2.cfg").write_text(CONFIG.format(
                key=world.place / "key", source=world.source, target=world.target))
        world.spawn("target", *self._csync2("target"), "-ii", env=self._env("target"))
        world.wait_port("target", PORT)

    def start(self):
        self.changed()

    def changed(self):
        self.world.command("source", *self._csync2("source"), "-x", env=self._env("source"))

    def _csync2(self, side):
        return ["csync2", "-N", self.world.names[side], "-D", self.world.state(side) / "db"]

    def _env(self, side):
        return {"CSYNC2_SYSTEM_DIR": str(self.world.state(side))}
