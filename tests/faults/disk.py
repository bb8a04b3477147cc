"""A disk that loses power, for nbdkit's python plugin.

What is written is volatile until a flush: until then every version of each 512-byte sector is
kept, and a power cut keeps any one of them, sector by sector. The image lives in memory.

    nbdkit -f -U SOCKET python disk.py size=BYTES ctl=FILE

Commands are lines appended to the control file; each is carried out before the next request:

    crash SEED   the power fails: each unflushed sector keeps any version, then all I/O fails
    on           the power is back
    failflush N  the Nth flush from here fails, and what was pending is lost; later ones succeed
    rot OFFSET   one bit at OFFSET flips
    eio A B      requests that touch bytes A up to B fail
"""

import errno
import io
import mmap
import random

import nbdkit

API_VERSION = 2
SECTOR = 512
# Versions of one sector that are kept; a sector that is written more often forgets middle ones.
VERSIONS_MAX = 8

size = 0
control = None
image = None
# Sector number -> its versions before the newest one, the stable one first.
pending = {}
is_off = False
flushes_to_failure = 0
bad_range = None


def thread_model():
    return nbdkit.THREAD_MODEL_SERIALIZE_ALL_REQUESTS


def config(key, value):
    global size, control
    if key == "size":
        size = int(value)
    elif key == "ctl":
        control = io.open(value, "r")
    else:
        raise RuntimeError("unknown parameter %s" % key)


def config_complete():
    global image
    if size == 0 or size % SECTOR != 0 or control is None:
        raise RuntimeError("size=BYTES (whole sectors) and ctl=FILE are needed")
    image = mmap.mmap(-1, size)


def open(readonly):
    return 1


def get_size(h):
    return size


def can_multi_conn(h):
    return True


def can_fua(h):
    return nbdkit.FUA_NATIVE


def can_cache(h):
    return nbdkit.CACHE_NONE


def obey():
    """Carries out the commands that were appended since the last request."""
    global is_off, flushes_to_failure, bad_range
    for line in control.readlines():
        words = line.split()
        if words[0] == "crash":
            cut_power(int(words[1]))
            is_off = True
        elif words[0] == "on":
            is_off = False
        elif words[0] == "failflush":
            flushes_to_failure = int(words[1])
        elif words[0] == "rot":
            offset = int(words[1])
            image[offset] ^= 1
        elif words[0] == "eio":
            bad_range = (int(words[1]), int(words[2]))
        else:
            nbdkit.debug("unknown command: %s" % line)


def cut_power(seed):
    choice = random.Random(seed)
    for sector in sorted(pending):
        versions = pending[sector]
        at = sector * SECTOR
        keep = choice.randrange(len(versions) + 1)
        if keep < len(versions):
            image[at:at + SECTOR] = versions[keep]
    pending.clear()


def check(offset, count):
    obey()
    is_bad = bad_range is not None and offset < bad_range[1] and bad_range[0] < offset + count
    if is_off or is_bad:
        nbdkit.set_error(errno.EIO)
        raise RuntimeError("no power" if is_off else "bad sectors")


def keep_versions(offset, count):
    for sector in range(offset // SECTOR, (offset + count + SECTOR - 1) // SECTOR):
        versions = pending.setdefault(sector, [])
        if len(versions) == VERSIONS_MAX:
            del versions[1]
        at = sector * SECTOR
        versions.append(image[at:at + SECTOR])


def make_stable(offset, count):
    for sector in range(offset // SECTOR, (offset + count + SECTOR - 1) // SECTOR):
        pending.pop(sector, None)


def pread(h, buf, offset, flags):
    check(offset, len(buf))
    buf[:] = image[offset:offset + len(buf)]


def pwrite(h, buf, offset, flags):
    check(offset, len(buf))
    keep_versions(offset, len(buf))
    image[offset:offset + len(buf)] = bytes(buf)
    if flags & nbdkit.FLAG_FUA:
        make_stable(offset, len(buf))


def zero(h, count, offset, flags):
    check(offset, count)
    keep_versions(offset, count)
    image[offset:offset + count] = bytes(count)
    if flags & nbdkit.FLAG_FUA:
        make_stable(offset, count)


def trim(h, count, offset, flags):
    zero(h, count, offset, flags)


def flush(h, flags):
    global flushes_to_failure
    check(0, 0)
    if flushes_to_failure > 0:
        flushes_to_failure -= 1
        if flushes_to_failure == 0:
            for sector, versions in pending.items():
                at = sector * SECTOR
                image[at:at + SECTOR] = versions[0]
            pending.clear()
            nbdkit.set_error(errno.EIO)
            raise RuntimeError("the flush failed")
    pending.clear()
