"""What a driver of a product is. Each file beside this one has a class `Product` that is one.

The target's service runs before the clock starts; what runs on the source is started under it.
"""

import shutil
import subprocess


class Failure(Exception):
    """The product, or the machine, did not do what the run needs; in words for people."""


class Driver:
    """One product on the two sides of a `World`, for one pair of trees."""

    # Debian packages that it needs.
    PACKAGES = []
    # The program that must be there.
    PROGRAM = ""
    # How it is run, for the one who reads the figures.
    NOTE = ""
    # What it puts at the top of a tree for itself.
    own_names = frozenset()

    def __init__(self, world):
        self.world = world

    @classmethod
    def missing(cls):
        """Why it cannot be run here, or nothing."""
        return None if shutil.which(cls.PROGRAM) else f"no {cls.PROGRAM}"

    def version(self):
        """Its version, as Debian numbers it."""
        return subprocess.run(["dpkg-query", "-W", "-f", "${Version}", self.PACKAGES[0]],
                              capture_output=True, text=True, check=True).stdout

    def prepare(self):
        """Writes what it needs and starts what runs on the target. Not timed."""

    def start(self):
        """Starts the first copy. Timed."""
        raise NotImplementedError

    def changed(self):
        """The tree has just changed: starts the command of products that watch nothing. Timed."""

    def settle(self, timeout):
        """Waits until it has finished what the last change began."""
        self.world.finish_commands(timeout)
