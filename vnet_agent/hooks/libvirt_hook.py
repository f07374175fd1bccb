#!/usr/bin/python3 -IS
"""libvirt's qemu hook: hands the operation and the domain XML to the agent, and leaves.

libvirt waits for this program in the middle of starting, migrating and stopping VMs, takes what
it prints as a new domain XML, and lets a non-zero exit status fail the operation. Therefore it
never prints, always exits 0, and gives up within [hook] timeout_ms, whatever state the agent is
in; the agent then learns of the operation from libvirt itself.

It imports nothing of the rest, so that a copy of this file in /etc/libvirt/hooks/qemu.d works,
and avoids the modules socket, json and configparser: they would double its start-up time, which
every operation on a VM pays several times.
"""

import os
import sys
from select import POLLIN, POLLOUT, poll
from time import CLOCK_BOOTTIME, clock_gettime, monotonic

try:
    from _socket import AF_UNIX, SOCK_DGRAM, SOCK_STREAM, socket
except ImportError:
    from socket import AF_UNIX, SOCK_DGRAM, SOCK_STREAM, socket  # type: ignore[assignment]
try:
    from _json import encode_basestring_ascii as quote
except ImportError:
    from json import dumps as quote

CONFIG = "/etc/vnet/agent.conf"
SOCKET = "/run/vnet/agent.sock"
TIMEOUT_MS = 200
#: Seconds that saying why and leaving take, at the most.
LEAVING = 0.005
#: A domain XML has some 4 kB. What is longer is not sent: the agent asks libvirt instead.
MAX_XML = 2 * 1024 * 1024
MAX_CONFIG = 1024 * 1024
MAX_REPLY = 4096
SYSLOG = "/dev/log"


class GiveUp(Exception):
    """The agent is not told, and why."""


def main() -> int:
    """Tell the agent; the answer is always 0."""
    try:
        silence_output()
        tell_agent(sys.argv[1:], os.environ.get("VNET_AGENT_CONF") or CONFIG)
    except BaseException as error:
        complain(error)
    return 0


def silence_output() -> None:
    """Whatever prints, the interpreter included: libvirt would take it for a domain XML."""
    os.dup2(os.open(os.devnull, os.O_RDWR), 1)


def tell_agent(arguments: list[str], config: str) -> None:
    path, timeout = read_config(config)
    deadline = monotonic() + timeout - min(process_age() + LEAVING, timeout / 2)
    name, operation, suboperation = (*arguments, "", "", "")[:3]
    xml = read_input(deadline)
    fields = {"domain": name, "operation": operation, "suboperation": suboperation, "xml": xml}
    post(path, encode(fields), deadline)


def process_age() -> float:
    """Seconds since libvirt made this process, up to 10 ms too many: the time is libvirt's own.

    proc(5): field 22 of stat is the start, in ticks since the boot.
    """
    try:
        with open("/proc/self/stat", "rb") as file:
            start = int(file.read().rsplit(b")", 1)[1].split()[19])
        return max(clock_gettime(CLOCK_BOOTTIME) - start / os.sysconf("SC_CLK_TCK"), 0.0)
    except (OSError, ValueError, IndexError):
        return 0.0


def read_config(name: str) -> tuple[str, float]:
    """Path of the agent's socket and the time to spend, in seconds; defaults for what is wrong."""
    values: dict[tuple[str, str], str] = {}
    try:
        with open(name, "rb") as file:
            text = file.read(MAX_CONFIG).decode("utf-8", "replace")
    except OSError:
        text = ""
    section = "DEFAULT"
    for line in text.splitlines():
        if line.startswith("["):
            section = line.strip().strip("[]").strip()
        elif line[:1] not in ("", "#", ";", " ", "\t"):
            separator = min((at for at in (line.find("="), line.find(":")) if at > 0), default=0)
            if separator:
                value = line[separator + 1 :].strip().strip("\"'")
                values[section, line[:separator].strip()] = value
    try:
        milliseconds = int(values.get(("hook", "timeout_ms"), TIMEOUT_MS))
    except ValueError:
        milliseconds = TIMEOUT_MS
    path = values.get(("DEFAULT", "api_socket")) or SOCKET
    return path, min(max(milliseconds, 10), 5000) / 1000


def read_input(deadline: float) -> str:
    """The domain XML from standard input; empty when there is none, or when it is too long."""
    chunks: list[bytes] = []
    size = 0
    while True:
        if not ready(0, POLLIN, remaining(deadline)):
            raise GiveUp("libvirt sent no XML in time")
        try:
            chunk = os.read(0, 65536)
        except OSError:
            return ""
        if not chunk:
            break
        size += len(chunk)
        if size <= MAX_XML:
            chunks.append(chunk)
        else:
            chunks.clear()
    return b"".join(chunks).decode("utf-8", "replace") if size <= MAX_XML else ""


def ready(descriptor: int, event: int, seconds: float) -> bool:
    poller = poll()
    poller.register(descriptor, event)
    return bool(poller.poll(seconds * 1000))


def remaining(deadline: float) -> float:
    left = deadline - monotonic()
    if left <= 0:
        raise GiveUp("no time is left")
    return left


def encode(fields: dict[str, str]) -> bytes:
    pairs = (f"{quote(name)}: {quote(value)}" for name, value in fields.items())
    return ("{" + ", ".join(pairs) + "}").encode("ascii")


def post(path: str, body: bytes, deadline: float) -> None:
    head = (
        "POST /v1/hook HTTP/1.1\r\nHost: vnet-agent\r\nConnection: close\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    request = memoryview(head.encode("ascii") + body)
    reply = b""
    connection = socket(AF_UNIX, SOCK_STREAM)
    try:
        connection.settimeout(remaining(deadline))
        connection.connect(path)
        while request:
            connection.settimeout(remaining(deadline))
            request = request[connection.send(request) :]
        while b"\r\n" not in reply:
            connection.settimeout(remaining(deadline))
            chunk = connection.recv(MAX_REPLY - len(reply))
            if not chunk:
                raise GiveUp("the agent hung up or sent no HTTP")
            reply += chunk
    except OSError as error:
        raise GiveUp(f"agent at {path}: {error}") from None
    finally:
        connection.close()
    status = reply.split(b"\r\n", 1)[0].decode("ascii", "replace")
    if status[9:10] != "2":
        raise GiveUp(f"the agent answered {status}")


def complain(error: BaseException) -> None:
    """One line on standard error and one in the system's log; neither may fail or block."""
    reason = " ".join(str(error).split()) or type(error).__name__
    call = " ".join(repr(argument[:64])[1:-1] for argument in sys.argv[1:4])
    line = f"vnet-libvirt-hook: {call}: agent not told: {reason}"
    for report in (to_stderr, to_syslog):
        try:
            report(line)
        except BaseException:
            continue


def to_stderr(line: str) -> None:
    if ready(2, POLLOUT, 0):
        os.write(2, line.encode("utf-8", "replace") + b"\n")


def to_syslog(line: str) -> None:
    log = socket(AF_UNIX, SOCK_DGRAM)
    log.setblocking(False)
    log.connect(SYSLOG)
    log.send(f"<28>{line}".encode("utf-8", "replace"))


if __name__ == "__main__":
    os._exit(main())
