"""A balancer's description as HAProxy reads it, and what HAProxy says of its backends."""

from __future__ import annotations

import csv
from collections.abc import Iterator

from tests.e2e.digitalocean.machinery import Balancer, Check, Forwarding

__all__ = ["configuration", "description", "server_state", "up"]

SOCKET = "/run/haproxy.sock"
STATE = "/etc/haproxy/state"

# What `show servers state` begins with, naming the fields of rows (management guide of HAProxy 2.6, 9.3).
STATE_HEADER = (
    "1\n# be_id be_name srv_id srv_name srv_addr srv_op_state srv_admin_state srv_uweight srv_iweight "
    "srv_time_since_last_change srv_check_status srv_check_result srv_check_health srv_check_state "
    "srv_agent_state bk_f_forced_id srv_f_forced_id srv_fqdn srv_port srvrecord srv_use_ssl srv_check_port "
    "srv_check_addr srv_agent_addr srv_agent_port"
)
STATE_FIELDS = STATE_HEADER.partition("# ")[2].split(" ")
HEALTH = ("srv_op_state", "srv_check_status", "srv_check_result", "srv_check_health")
DOWN = {
    **dict.fromkeys(STATE_FIELDS, "0"),
    **dict.fromkeys(("be_id", "srv_id", "srv_uweight", "srv_iweight", "srv_check_status"), "1"),
    **dict.fromkeys(("srv_fqdn", "srvrecord", "srv_check_addr", "srv_agent_addr"), "-"),
    "srv_check_state": "6",  # configured and enabled
}


def configuration(balancer: Balancer, version: str) -> str:
    """HAProxy's configuration, with its version in words for `description` to find.

    It passes TCP on and looks into nothing. Certificates are not verified by its checks, and an HTTP status
    of 200 to 299 is health.
    """
    listeners = "\n".join(_listener(balancer, each) for each in balancer.forwarding)
    # A connection may be silent for a minute. Without maxconn, memory is taken for as many as the engine's
    # limit of files allows, which may be a billion.
    return f"""\
global
  description {version}
  maxconn 4000
  stats socket {SOCKET} mode 600 level admin expose-fd listeners
  server-state-file {STATE}

defaults
  mode tcp
  balance roundrobin
  timeout connect 5s
  timeout client 60s
  timeout server 60s
  timeout check {balancer.check.timeout}s
  load-server-state-from-file global

{listeners}"""


def _listener(balancer: Balancer, forwarding: Forwarding) -> str:
    first = balancer.forwarding[0]
    lines = [f"bind {balancer.public}:{forwarding.port}"]
    if balancer.allowed:
        lines.append(f"tcp-request connection reject unless {{ src {' '.join(balancer.allowed)} }}")
    if forwarding == first:
        lines += _check(balancer.check, balancer.public)
    for droplet, address in sorted(balancer.backends.items()):
        # A droplet is checked once, however many ports lead to it.
        track = "" if forwarding == first else f" track {_listen(first)}/{_server(droplet)}"
        lines.append(f"server {_server(droplet)} {address}:{forwarding.target}{track}")
    return "\n".join([f"listen {_listen(forwarding)}", *(f"  {line}" for line in lines), ""])


def _check(check: Check, host: str) -> Iterator[str]:
    if check.protocol != "tcp":
        yield "option httpchk"
        yield f"http-check send meth GET uri '{check.path}' ver HTTP/1.1 hdr Host {host}"
        yield "http-check expect status 200-299"
    encryption = "check-ssl verify none " if check.protocol == "https" else ""
    yield (
        f"default-server check port {check.port} {encryption}"
        f"inter {check.interval}s rise {check.healthy} fall {check.unhealthy}"
    )


def server_state(balancer: Balancer, shown: str) -> str:
    """What HAProxy has to know of its servers when it starts or reloads.

    `shown` is the answer of the running one to `show servers state`, or "". Those that stay are as healthy
    as they were; new ones are down until their checks say otherwise, where HAProxy of itself takes them for
    healthy.
    """
    known = {(row["be_name"], row["srv_name"], row["srv_addr"]): row for row in _rows(shown)}
    checked = balancer.forwarding[0]
    listen = _listen(checked)
    lines = []
    for droplet, address in sorted(balancer.backends.items()):
        server = _server(droplet)
        row = {
            **DOWN,
            "be_name": listen,
            "srv_name": server,
            "srv_addr": address,
            "srv_port": str(checked.target),
        }
        if before := known.get((listen, server, address)):
            row |= {field: before[field] for field in HEALTH}
        lines.append(" ".join(row[field] for field in STATE_FIELDS))
    return "\n".join([STATE_HEADER, *lines, ""])


def _rows(shown: str) -> Iterator[dict[str, str]]:
    if shown:
        header, _, rows = shown.partition(f"{STATE_HEADER}\n")
        if header:
            raise ValueError(f"these are not the states of servers as HAProxy 2.6 shows them: {shown}")
        for line in rows.strip().splitlines():
            yield dict(zip(STATE_FIELDS, line.split(" "), strict=True))


def description(shown: str) -> str:
    """The version of the configuration that runs, from the answer to `show info`."""
    pairs = dict(line.split(": ", 1) for line in shown.splitlines() if ": " in line)
    return pairs["description"]


def up(shown: str) -> set[int]:
    """Droplets that get connections, from the answer to `show stat`."""
    rows = csv.DictReader(shown.removeprefix("# ").splitlines())
    return {
        int(row["svname"].removeprefix("droplet-"))
        for row in rows
        if row["svname"].startswith("droplet-") and row["status"].startswith("UP")
    }


def _listen(forwarding: Forwarding) -> str:
    return f"port-{forwarding.port}"


def _server(droplet: int) -> str:
    return f"droplet-{droplet}"
