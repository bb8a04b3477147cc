"""rsync to a daemon of rsync, by one command for each change."""

from driver import Driver

PORT = 873


class Product(Driver):
    PACKAGES = ["rsync"]
    PROGRAM = "rsync"
    NOTE = "rsync -aHAX --delete to a daemon, one command for each change, started at once"

    def prepare(self):
        serve(self.world)

    def start(self):
        self.changed()

    def changed(self):
        self.world.command("source", "rsync", "-aHAX", "--delete", "--numeric-ids",
                           f"{self.world.source}/", url(self.world))


def serve(world):
    """Starts the daemon on the target."""
    config = world.state("target") / "rsyncd.conf"
    config.write_text(f"[tree]\npath = {world.target}\nuse chroot = no\nread only = no\nuid = 0\ngid = 0\n"
                      "munge symlinks = no\n")
    world.spawn("target", "rsync", "--daemon", "--no-detach", f"--config={config}",
                f"--port={PORT}", f"--log-file={world.state('target')}/rsyncd.log")
    world.wait_port("target", PORT)


def url(world):
    return f"rsync://{world.addresses['target']}/tree/"
