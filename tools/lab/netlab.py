#!/usr/bin/env python3
"""Several "hosts" on one Linux machine, each with its own link rate, latency and share of CPU.

  netlab.py up a:rate=1000 b:rate=100,delay=5,cpu=50 [--engine tbf|tun] [--max-s 900]
  netlab.py exec b -- COMMAND ...         run in host b (network namespace, CPU cgroup)
  netlab.py env b                         addresses and rates of a host
  netlab.py down                          remove everything that was made

rate: Mbit/s, each direction.  delay: one-way ms (tun only).  cpu: percent of one core.
engine tbf: veth pairs on a bridge and kernel token buckets (rate only; needs sch_tbf, veth,
bridge). engine tun: one switch in user space between TUN devices, rate and latency, for kernels
without netem; below about 200 Mbit/s.
Needs root. One lab at a time: names are global. State is in $NETLAB_DIR (default <tmp>/netlab).
A watchdog ends the lab after --max-s.
"""

from __future__ import annotations

import argparse
import ctypes
import fcntl
import heapq
import json
import os
import select
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

FOLDER = Path(os.environ.get("NETLAB_DIR", str(Path(tempfile.gettempdir()) / "netlab")))
STATE = FOLDER / "state.json"
PREFIX, NETWORK, BRIDGE = "nl-", "10.77.0.", "nlbr0"
_CLONE_NEWNET, _TUNSETIFF, _IFF_TUN_NO_PI = 0x40000000, 0x400454CA, 0x1001
_QUEUE_S = 0.4

Host = dict[str, Any]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    verbs = parser.add_subparsers(dest="verb", required=True)
    start = verbs.add_parser("up")
    start.add_argument("host", nargs="+")
    start.add_argument("--engine", default="tbf", choices=("tbf", "tun"))
    start.add_argument("--max-s", type=int, default=900)
    inside = verbs.add_parser("exec")
    inside.add_argument("name")
    inside.add_argument("command", nargs=argparse.REMAINDER)
    verbs.add_parser("env").add_argument("name")
    verbs.add_parser("switch")
    verbs.add_parser("down")
    arguments = parser.parse_args()
    if arguments.verb == "up":
        up([parse_host(i, text) for i, text in enumerate(arguments.host)], arguments)
    elif arguments.verb == "exec":
        execute(host_named(arguments.name), arguments.command)
    elif arguments.verb == "env":
        print(*(f"{key}={value}" for key, value in host_named(arguments.name).items()))
    elif arguments.verb == "switch":
        switch()
    else:
        down()


def shell(command: str, *, may_fail: bool = False) -> str:
    done = subprocess.run(command, shell=True, capture_output=True, text=True)
    if done.returncode and not may_fail:
        sys.exit(f"{command}: {done.stderr.strip()}")
    return done.stdout


def parse_host(index: int, text: str) -> Host:
    name, _, options = text.partition(":")
    given = dict(option.split("=") for option in options.split(",") if option)
    return {
        "name": name,
        "ip": f"{NETWORK}{index + 1}",
        **{key: float(given.get(key, 0)) for key in ("rate", "delay", "cpu")},
    }


def host_named(name: str) -> Host:
    hosts: list[Host] = json.loads(STATE.read_text())["hosts"]
    found = [host for host in hosts if host["name"] == name]
    if not found:
        sys.exit(f"no host '{name}'; there are {', '.join(host['name'] for host in hosts)}")
    return found[0]


def up(hosts: list[Host], arguments: argparse.Namespace) -> None:
    if STATE.exists():
        sys.exit("already up; run down first")
    if Path(f"/sys/class/net/{BRIDGE}").exists() or list(Path("/run/netns").glob(PREFIX + "*")):
        sys.exit("another lab is up on this machine, and there can be one at a time")
    FOLDER.mkdir(parents=True, exist_ok=True)
    state: dict[str, Any] = {"hosts": hosts, "pids": []}
    STATE.write_text(json.dumps(state))
    try:
        _make(hosts, state, arguments)
    except BaseException:
        down()
        raise
    print(json.dumps(hosts))


def _make(hosts: list[Host], state: dict[str, Any], arguments: argparse.Namespace) -> None:
    if arguments.engine == "tbf":
        _make_bridge(hosts)
    else:
        state["pids"].append(_start_switch(hosts))
    for host in hosts:
        if host["cpu"]:
            host["cgroup"] = str(_make_cgroup(host))
    me = Path(__file__).resolve()
    watchdog = subprocess.Popen(
        ["sh", "-c", f"sleep {arguments.max_s}; exec {sys.executable} {me} down"],
        start_new_session=True,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    STATE.write_text(json.dumps({**state, "watchdog": watchdog.pid}, indent=1))


def _make_bridge(hosts: list[Host]) -> None:
    shell(f"ip link add {BRIDGE} type bridge && ip link set {BRIDGE} up")
    for host in hosts:
        name = PREFIX + host["name"]
        outer = f"{PREFIX}v{host['name']}"
        inside = f"ip netns exec {name} "
        shell(f"ip netns add {name}")
        shell(f"ip link add {outer} type veth peer name eth0 netns {name}")
        shell(f"ip link set {outer} master {BRIDGE} up")
        shell(inside + f"ip addr add {host['ip']}/24 dev eth0")
        shell(inside + "ip link set eth0 up")
        shell(inside + "ip link set lo up")
        if host["rate"]:
            burst_kb = max(16, int(host["rate"] / 8 * 2))  # about 2 ms
            bucket = f"root tbf rate {host['rate']}mbit burst {burst_kb}kb latency 400ms"
            shell(inside + f"tc qdisc add dev eth0 {bucket}")
            shell(f"tc qdisc add dev {outer} {bucket}")
            shell(inside + "ethtool -K eth0 tso off gso off", may_fail=True)


def _start_switch(hosts: list[Host]) -> int:
    for host in hosts:
        shell(f"ip netns add {PREFIX}{host['name']}")
        shell(f"ip netns exec {PREFIX}{host['name']} ip link set lo up")
    with (FOLDER / "switch.log").open("w") as log:
        process = subprocess.Popen(
            [sys.executable, __file__, "switch"],
            start_new_session=True,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
        )
    for _ in range(50):
        if (FOLDER / "ready").exists():
            break
        time.sleep(0.1)
    else:
        sys.exit("the switch did not start: " + (FOLDER / "switch.log").read_text())
    for host in hosts:
        inside = f"ip netns exec {PREFIX}{host['name']} "
        shell(inside + f"ip addr add {host['ip']}/24 dev eth0")
        shell(inside + "ip link set eth0 mtu 9000 up")
        shell(inside + f"ip route replace {NETWORK}0/24 dev eth0", may_fail=True)
    return process.pid


def _make_cgroup(host: Host) -> Path:
    quota_us = int(200 * host["cpu"])
    first_version = Path("/sys/fs/cgroup/cpu")
    if first_version.is_dir():
        group = first_version / f"netlab_{host['name']}"
        group.mkdir(exist_ok=True)
        (group / "cpu.cfs_period_us").write_text("20000")
        (group / "cpu.cfs_quota_us").write_text(str(quota_us))
    else:
        group = Path("/sys/fs/cgroup") / f"netlab_{host['name']}"
        group.mkdir(exist_ok=True)
        (group / "cpu.max").write_text(f"{quota_us} 20000")
    return group


def switch() -> None:
    """Deliver every packet after the serialisation of both ends' buckets, plus their delays."""
    hosts: list[Host] = json.loads(STATE.read_text())["hosts"]
    by_fd, by_address = _open_devices(hosts)
    (FOLDER / "ready").touch()
    queue: list[tuple[float, int, int, bytes]] = []
    sequence = 0
    poll = select.epoll()
    for fd in by_fd:
        poll.register(fd, select.EPOLLIN)
    while True:
        wait_s = max(0.0, queue[0][0] - time.monotonic()) if queue else -1
        for fd, _ in poll.poll(wait_s):
            source = by_fd[fd]
            for _ in range(64):
                try:
                    packet = os.read(fd, 65536)
                except BlockingIOError:
                    break
                target = by_address.get(packet[16:20])
                if target is None:
                    continue
                now = due = time.monotonic()
                for end, way in ((source, "sent_until"), (target, "received_until")):
                    if end["rate"]:
                        bytes_per_s = end["rate"] * 1e6 / 8
                        due = end[way] = max(due, end[way]) + len(packet) / bytes_per_s
                if due - now > _QUEUE_S:
                    continue
                sequence += 1
                due += (source["delay"] + target["delay"]) / 1e3
                heapq.heappush(queue, (due, sequence, target["fd"], packet))
        while queue and queue[0][0] <= time.monotonic():
            _, _, fd, packet = heapq.heappop(queue)
            with suppress(OSError):
                os.write(fd, packet)


def _open_devices(hosts: list[Host]) -> tuple[dict[int, Host], dict[bytes, Host]]:
    """A TUN device in every namespace, all of them held by this process."""
    libc = ctypes.CDLL(None, use_errno=True)
    home = os.open("/proc/self/ns/net", os.O_RDONLY)
    by_fd, by_address = {}, {}
    for host in hosts:
        there = os.open(f"/run/netns/{PREFIX}{host['name']}", os.O_RDONLY)
        if libc.setns(there, _CLONE_NEWNET):
            raise OSError(ctypes.get_errno(), "setns")
        fd = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
        fcntl.ioctl(fd, _TUNSETIFF, struct.pack("16sH22x", b"eth0", _IFF_TUN_NO_PI))
        libc.setns(home, _CLONE_NEWNET)
        os.close(there)
        host |= {"fd": fd, "sent_until": 0.0, "received_until": 0.0}
        by_fd[fd] = host
        by_address[bytes(map(int, host["ip"].split(".")))] = host
    return by_fd, by_address


def execute(host: Host, command: list[str]) -> None:
    if host.get("cgroup"):
        (Path(host["cgroup"]) / "cgroup.procs").write_text(str(os.getpid()))
    os.environ |= {
        "GLOO_SOCKET_IFNAME": "eth0",
        "TP_SOCKET_IFNAME": "eth0",
        "NETLAB_HOST": host["name"],
        "NETLAB_IP": host["ip"],
    }
    words = command[1:] if command[:1] == ["--"] else command
    os.execvp("ip", ["ip", "netns", "exec", PREFIX + host["name"], *words])


def down() -> None:
    if not STATE.exists():
        return
    state = json.loads(STATE.read_text())
    for host in state["hosts"]:
        for pid in shell(f"ip netns pids {PREFIX}{host['name']}", may_fail=True).split():
            if int(pid) != os.getpid():
                with suppress(OSError):
                    os.kill(int(pid), signal.SIGKILL)
    for pid in state["pids"]:
        with suppress(OSError):
            os.kill(pid, signal.SIGTERM)
    time.sleep(0.3)
    for host in state["hosts"]:
        shell(f"ip link del {PREFIX}v{host['name']}", may_fail=True)
        shell(f"ip netns del {PREFIX}{host['name']}", may_fail=True)
        if host.get("cgroup"):
            with suppress(OSError):
                Path(host["cgroup"]).rmdir()
    shell(f"ip link del {BRIDGE}", may_fail=True)
    shutil.rmtree(FOLDER, ignore_errors=True)
    watchdog = state.get("watchdog")
    if watchdog and watchdog != os.getpid():
        with suppress(OSError):
            os.killpg(watchdog, signal.SIGTERM)


if __name__ == "__main__":
    main()
