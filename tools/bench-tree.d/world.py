"""Two sides joined by a cable: namespaces of the network, memory, and the processes on each side."""

import os
import pathlib
import re
import shutil
import signal
import subprocess
import threading
import time

from driver import Failure

SIDES = ["source", "target"]
ADDRESSES = {"source": "10.91.0.1", "target": "10.91.0.2"}
NAMES = {"source": "alpha", "target": "beta"}
SAMPLE_SECONDS = 0.02


class Link:
    """Two network namespaces with one cable between them, and what went through it."""

    def __init__(self, rate):
        self.holders = {side: self._namespace() for side in SIDES}
        a, b = (str(self.holders[side].pid) for side in SIDES)
        # One segment a packet, so that the counters see the headers that an Ethernet would.
        run("ip", "link", "add", "veth0", "netns", a, "gso_max_segs", "1", "type", "veth",
            "peer", "name", "veth0", "netns", b, "gso_max_segs", "1")
        for side in SIDES:
            self._configure(side, rate)

    def _namespace(self):
        holder = subprocess.Popen(["unshare", "--net", "sleep", "infinity"])
        mine = os.readlink("/proc/self/ns/net")
        wait_until(lambda: os.readlink(f"/proc/{holder.pid}/ns/net") != mine, 10, "a namespace")
        return holder

    def _configure(self, side, rate):
        inside = self.enter(side)
        # The first peer may have lost its limit: it is set at both ends.
        run(*inside, "ip", "link", "set", "veth0", "gso_max_segs", "1")
        run(*inside, "ip", "link", "set", "lo", "up")
        # No IPv6: its neighbour discovery would be counted. The kernel lets a namespace choose only
        # what everybody may use, which is Reno at least. BBR is bad at links without a delay.
        run(*inside, "sh", "-c", "cd /proc/sys/net && { [ ! -e ipv6 ] || echo 1 >ipv6/conf/all/disable_ipv6; } && "
            "{ echo cubic >ipv4/tcp_congestion_control || echo reno >ipv4/tcp_congestion_control; }")
        run(*inside, "ip", "address", "add", f"{ADDRESSES[side]}/30", "dev", "veth0")
        run(*inside, "ip", "link", "set", "veth0", "up")
        if rate:
            run(*inside, "tc", "qdisc", "add", "dev", "veth0", "root", "tbf", "rate", rate,
                "burst", "256kb", "latency", "50ms")

    def congestion_control(self):
        return run(*self.enter("source"), "cat", "/proc/sys/net/ipv4/tcp_congestion_control").strip()

    def enter(self, side):
        """What to put before a command so that it runs on a side."""
        return ["nsenter", f"--net=/proc/{self.holders[side].pid}/ns/net", "--"]

    def bytes(self):
        """Bytes that left both ends, with Ethernet headers."""
        total = 0
        for holder in self.holders.values():
            text = pathlib.Path(f"/proc/{holder.pid}/net/dev").read_text()
            fields = re.search(r"^\s*veth0:(.*)$", text, re.M).group(1).split()
            total += int(fields[8])
        return total

    def listens(self, side, port):
        """Whether somebody accepts TCP connections at a port of a side."""
        for table in ("tcp", "tcp6"):
            path = pathlib.Path(f"/proc/{self.holders[side].pid}/net/{table}")
            for line in path.read_text().splitlines()[1:] if path.exists() else []:
                fields = line.split()
                if fields[3] == "0A" and int(fields[1].split(":")[1], 16) == port:
                    return True
        return False

    def pids(self, side):
        """All processes of a side but the one that keeps it."""
        holder = self.holders[side].pid
        wanted = os.readlink(f"/proc/{holder}/ns/net")
        found = []
        for entry in os.listdir("/proc"):
            try:
                if entry.isdigit() and int(entry) != holder \
                        and os.readlink(f"/proc/{entry}/ns/net") == wanted:
                    found.append(int(entry))
            except OSError:
                continue
        return found


class Memory(threading.Thread):
    """The most memory that each side held since `reset`, looked at 50 times a second.

    Counted is anonymous memory: what the programs hold themselves. The page cache is left out:
    it fills with the files of the tree, whichever product wrote them.
    """

    def __init__(self, link, groups):
        super().__init__(daemon=True)
        self.link, self.groups = link, groups
        self.peak = dict.fromkeys(SIDES, 0)

    def reset(self):
        self.peak = dict.fromkeys(SIDES, 0)
        for group in self.groups.values():
            mark = group / "memory.max_usage_in_bytes"
            if mark.exists():
                mark.write_text("0")

    def charged(self, side):
        """The kernel's own high mark of a side, page cache included: since `reset` with the first
        version of control groups, since the start with the second."""
        for name in ("memory.max_usage_in_bytes", "memory.peak"):
            if side in self.groups and (self.groups[side] / name).exists():
                return int((self.groups[side] / name).read_text())
        return None

    def run(self):
        while True:
            for side in SIDES:
                now = self._group(side) if side in self.groups else self._processes(side)
                self.peak[side] = max(self.peak[side], now)
            time.sleep(SAMPLE_SECONDS)

    def _group(self, side):
        for line in (self.groups[side] / "memory.stat").read_text().splitlines():
            name, value = line.split()
            if name in ("anon", "total_rss"):
                return int(value)
        return 0

    def _processes(self, side):
        total = 0
        for pid in self.link.pids(side):
            try:
                text = pathlib.Path(f"/proc/{pid}/smaps_rollup").read_text()
            except OSError:
                continue
            total += sum(int(kib) << 10 for kib in re.findall(r"^Pss_Anon:\s*(\d+)", text, re.M))
        return total


class World:
    """The two sides as a driver sees them: trees, folders for its own files, and processes."""

    def __init__(self, home, groups, rate):
        self.home, self.groups = pathlib.Path(home), groups
        self.link = Link(rate)
        self.memory = Memory(self.link, groups)
        self.memory.start()
        self.addresses, self.names = ADDRESSES, NAMES
        self.daemons, self.commands = [], []
        hosts = self.home / "hosts"
        lines = [f"{ADDRESSES[side]} {NAMES[side]}\n" for side in SIDES]
        hosts.write_text("127.0.0.1 localhost\n" + "".join(lines))
        # Only in the mount namespace of this run.
        run("mount", "--bind", hosts, "/etc/hosts")

    def fresh(self, name):
        """Begins with empty trees and folders."""
        self.place = self.home / name
        self.trees = {side: self.place / side / "tree" for side in SIDES}
        self.source, self.target = self.trees["source"], self.trees["target"]
        for side in SIDES:
            self.trees[side].mkdir(parents=True)
            self.state(side).mkdir()

    def state(self, side):
        """A folder for what a product keeps on a side beside the tree."""
        return self.place / side / "state"

    def spawn(self, side, *argv, env=None):
        """Starts a program that stays; that it ended is a failure."""
        self.daemons.append(self._popen(side, argv, env))

    def command(self, side, *argv, env=None):
        """Starts a program that ends by itself, with 0."""
        self.commands.append(self._popen(side, argv, env))

    def run(self, side, *argv, env=None):
        """Runs a program to its end and answers what it printed."""
        process = self._popen(side, argv, env)
        status = process.wait()
        if status != 0:
            raise Failure(f"{argv[0]} ended with {status}: {last_line(process.log)}")
        return process.log.read_text(errors="replace")

    def _popen(self, side, argv, env):
        argv = [str(word) for word in argv]
        log = self.state(side) / f"{len(os.listdir(self.state(side)))}-{pathlib.Path(argv[0]).name}.log"
        wrapped = self.link.enter(side) + argv
        if side in self.groups:
            wrapped = ["sh", "-c", 'echo $$ >"$0" && exec "$@"', str(self.groups[side] / "cgroup.procs"), *wrapped]
        variables = {**os.environ, "HOME": str(self.state(side)), "LC_ALL": "C.UTF-8", **(env or {})}
        with log.open("wb") as output:
            process = subprocess.Popen(wrapped, stdin=subprocess.DEVNULL, stdout=output,
                                       stderr=subprocess.STDOUT, env=variables, cwd=self.state(side))
        process.log = log
        return process

    def check(self):
        """Fails if a program ended that should not, or as it should not."""
        if not self.memory.is_alive():
            raise Failure("memory is not looked at any more")
        for process in self.daemons:
            if process.poll() is not None:
                raise Failure(f"{process.log.name}: ended: {last_line(process.log)}")
        for process in self.commands:
            if process.poll():
                raise Failure(f"{process.log.name}: ended with {process.returncode}: {last_line(process.log)}")

    def finish_commands(self, timeout):
        """Waits for what `command` started."""
        self.wait(lambda: all(process.poll() is not None for process in self.commands), timeout, "a command")
        self.check()
        self.commands.clear()

    def wait_port(self, side, port):
        """Waits until somebody listens at a port of a side."""
        self.wait(lambda: self.link.listens(side, port), 30, f"port {port}")

    def wait(self, is_done, timeout, what):
        wait_until(is_done, timeout, what, self.check)

    def stop(self):
        """Ends every process on both sides, and forgets the trees."""
        for number in (signal.SIGTERM, signal.SIGKILL):
            for pid in self._pids():
                try:
                    os.kill(pid, number)
                except ProcessLookupError:
                    continue
            deadline = time.monotonic() + 10
            while self._pids() and time.monotonic() < deadline:
                for process in self.daemons + self.commands:
                    process.poll()
                time.sleep(0.02)
        self.daemons, self.commands = [], []
        shutil.rmtree(self.place, ignore_errors=True)

    def _pids(self):
        return [pid for side in SIDES for pid in self.link.pids(side) if not is_zombie(pid)]


def wait_until(is_done, timeout, what, check=lambda: None):
    """Looks each millisecond, or half of the time if looking takes longer."""
    deadline = time.monotonic() + timeout
    while True:
        begin = time.monotonic()
        if is_done():
            return
        if begin > deadline:
            raise Failure(f"waited {timeout} s for {what}")
        check()
        time.sleep(max(0.001, time.monotonic() - begin))


def run(*argv):
    words = [str(word) for word in argv]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise Failure(f"{' '.join(words)}: {done.stderr.strip()}")
    return done.stdout


def last_line(log):
    lines = log.read_text(errors="replace").strip().splitlines()
    return lines[-1] if lines else "it said nothing"


def is_zombie(pid):
    try:
        return pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] in "ZX"
    except OSError:
        return True
