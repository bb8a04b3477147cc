"""The cases: what is done to a tree, and when the other side has it.

Every product is looked at in the same way: by what can be read in the target's tree.
"""

import os
import random
import time

from driver import Failure
from world import SIDES

FILE_LEN = 4096
FILES_PER_DIRECTORY = 100
# A link is quiet once it moved less than this in each of two seconds.
QUIET_BYTES_PER_SECOND = 16 << 10
IDLE_SECONDS = 5


class Meter:
    """Measures one step: from its making until `seen`, and on until the link is quiet."""

    def __init__(self, world):
        self.world = world
        world.memory.reset()
        self.bytes_before = world.link.bytes()
        self.start = time.monotonic()

    def seen(self):
        self.seconds = time.monotonic() - self.start

    def quiet(self, driver, timeout):
        """Waits for the end of what follows, and answers the figures of the step."""
        driver.settle(timeout)
        deadline, silent, end, last = time.monotonic() + timeout, 0, None, self.world.link.bytes()
        while silent < 2:
            if time.monotonic() > deadline:
                raise Failure("the link did not become quiet")
            end = last if silent == 0 else end
            time.sleep(1)
            self.world.check()
            now = self.world.link.bytes()
            silent = silent + 1 if now - last < QUIET_BYTES_PER_SECOND else 0
            last = now
        return self.figures(self.seconds, end - self.bytes_before)

    def figures(self, seconds, wire):
        memory = self.world.memory
        return {"seconds": seconds, "wire_bytes": wire,
                **{f"{side}_bytes": memory.peak[side] for side in SIDES},
                **{f"{side}_charged_bytes": memory.charged(side) for side in SIDES}}


def small_tree(world, options, seed):
    """Files of 4 KiB that do not compress, a part of them in one large directory; its names."""
    draw = random.Random(seed)
    paths = [f"moved/{index:06}" for index in range(options.moved)]
    for index in range(options.files - options.moved):
        paths.append(f"d{index // FILES_PER_DIRECTORY:05}/{index:06}")
    for path in paths:
        file = world.source / path
        if not file.parent.is_dir():
            file.parent.mkdir()
        file.write_bytes(draw.randbytes(FILE_LEN))
    os.sync()
    return paths


def run_small(world, driver, options, seed, report):
    """All cases on the tree of small files, one after the other."""
    paths = small_tree(world, options, seed)
    driver.prepare()
    meter = Meter(world)
    driver.start()
    await_files(world, paths, options.timeout)
    meter.seen()
    report("small", meter.quiet(driver, options.timeout))
    compare(world, driver)
    idle = Meter(world)
    time.sleep(IDLE_SECONDS)
    report("idle", idle.figures(IDLE_SECONDS, world.link.bytes() - idle.bytes_before))
    if "change" in options.cases:
        draw = random.Random(f"{seed} change")
        for path in draw.sample(paths[options.moved:], options.changes):
            report("change", change(world, driver, options, path, 0, draw.randbytes(FILE_LEN)))
    if "rename" in options.cases:
        report("rename", rename(world, driver, options, paths))
    compare(world, driver)


def rename(world, driver, options, paths):
    """Another name for the large directory."""
    meter = Meter(world)
    os.rename(world.source / "moved", world.source / "renamed")
    driver.changed()
    names = [path.replace("moved/", "renamed/") for path in paths[:options.moved]]
    await_files(world, names, options.timeout)
    world.wait(lambda: not (world.target / "moved").exists(), options.timeout, "the old name to go")
    meter.seen()
    return meter.quiet(driver, options.timeout)


def change(world, driver, options, path, offset, content):
    """Other bytes in the middle of a file, until they can be read on the other side."""
    def is_there():
        try:
            with open(world.target / path, "rb", buffering=0) as file:
                return os.pread(file.fileno(), len(content), offset) == content
        except OSError:
            return False

    meter = Meter(world)
    with open(world.source / path, "r+b", buffering=0) as file:
        os.pwrite(file.fileno(), content, offset)
    driver.changed()
    world.wait(is_there, options.timeout, f"the change of {path}")
    meter.seen()
    return meter.quiet(driver, options.timeout)


def run_big(world, driver, options, seed, report):
    """One large file alone in its tree: the first copy, and a small change in it."""
    draw = random.Random(seed)
    with open(world.source / "big", "wb") as file:
        step = 64 << 20 if options.sparse else 1 << 20
        for offset in range(0, options.big, step):
            file.seek(offset)
            file.write(draw.randbytes(min(FILE_LEN if options.sparse else step, options.big - offset)))
        file.truncate(options.big)
        tail = draw.randbytes(FILE_LEN)
        file.seek(options.big - FILE_LEN)
        file.write(tail)
    os.sync()
    driver.prepare()
    meter = Meter(world)
    driver.start()

    def is_whole():
        try:
            with open(world.target / "big", "rb", buffering=0) as copy:
                return os.pread(copy.fileno(), 2 * FILE_LEN, options.big - FILE_LEN) == tail
        except OSError:
            return False

    world.wait(is_whole, options.timeout, "the large file")
    meter.seen()
    report("big-first", meter.quiet(driver, options.timeout))
    compare(world, driver)
    offset = draw.randrange(options.big // FILE_LEN) * FILE_LEN
    report("big", change(world, driver, options, "big", offset, draw.randbytes(FILE_LEN)))
    compare(world, driver)


def await_files(world, paths, timeout):
    """Waits until all files are there with their whole length. They do not go away once they are
    there, so only the first one that is missing is looked at again."""
    root, at = str(world.target), 0

    def is_complete():
        nonlocal at
        while at < len(paths):
            try:
                if os.stat(f"{root}/{paths[at]}").st_size != FILE_LEN:
                    return False
            except OSError:
                return False
            at += 1
        return True

    world.wait(is_complete, timeout, f"{len(paths)} files")


def compare(world, driver):
    """Fails if the trees have other names or other content."""
    found = [listing(world.trees[side], driver.own_names) for side in SIDES]
    if found[0].keys() != found[1].keys():
        names = sorted(found[0].keys() ^ found[1].keys())
        raise Failure(f"the trees differ in {len(names)} names, as in {names[0]}")
    for name, is_directory in found[0].items():
        if not is_directory and not same_content(world.source / name, world.target / name):
            raise Failure(f"{name} has another content")


def listing(root, own_names):
    """What is below a root: whether each name is a directory."""
    names = {}
    for folder, folders, files in os.walk(root):
        inside = os.path.relpath(folder, root) if folder != str(root) else ""
        if not inside:
            folders[:] = [name for name in folders if name not in own_names]
            files = [name for name in files if name not in own_names]
        names.update({os.path.join(inside, name): True for name in folders})
        names.update({os.path.join(inside, name): False for name in files})
    return names


def same_content(mine, theirs):
    with open(mine, "rb", buffering=0) as left, open(theirs, "rb", buffering=0) as right:
        while True:
            content = left.read(1 << 20)
            if content != right.read(1 << 20):
                return False
            if not content:
                return True
