"""lsyncd, which watches the tree and runs rsync to a daemon of rsync."""

from driver import Driver
from rsync import serve, url

CONFIG = """settings {{ nodaemon = true, statusFile = "{state}/status" }}
sync {{
  default.rsync, source = "{source}", target = "{url}", delay = 0, delete = true,
  rsync = {{ archive = true, hard_links = true, acls = true, xattrs = true, _extra = {{ "--numeric-ids" }} }},
}}
"""


class Product(Driver):
    PACKAGES = ["lsyncd", "rsync"]
    PROGRAM = "lsyncd"
    NOTE = "default.rsync with delay = 0, and rsync as above"

    def prepare(self):
        serve(self.world)

    def start(self):
        world = self.world
        config = world.state("source") / "lsyncd.lua"
        config.write_text(CONFIG.format(state=world.state("source"), source=world.source, url=url(world)))
        world.spawn("source", "lsyncd", "-nodaemon", config)
