"""Cleans hosts that outlive the cluster when it is destroyed."""

from __future__ import annotations

import shlex

import pulumi
import pulumi_command as command

from components.assets.claims import claims_script
from components.assets.templates import script
from components.hosts.host import Host, Hosts
from components.ssh import DONE, SET_PATH, for_any_shell

__all__ = ["reset_on_destroy"]


def reset_on_destroy(name: str, hosts: Hosts, opts: pulumi.ResourceOptions) -> list[pulumi.Resource]:
    """Makes, for every host that the program does not own, a step whose deletion cleans the host."""
    return [
        _Reset(f"{name}-{host.name}-reset", name, host, opts) for host in hosts.values() if not host.ephemeral
    ]


class _Reset(command.local.Command):
    """Does nothing until it is deleted; then it resets the host with this machine's SSH client.

    A remote Command fails to be deleted when its host is dead (pulumi-command#104), and the stack with it.
    The client tells a host that does not answer (255) from a script that fails, so a dead host is reported
    and passed over. The login key comes by stdin into an agent and never touches the disk. Nothing replaces
    it, not even another host key: how to reach the host is updated in place, so that `pulumi up` mends it.
    """

    def __init__(self, name: str, cluster: str, host: Host, opts: pulumi.ResourceOptions) -> None:
        address = pulumi.Output.from_input(host.ssh.host)
        super().__init__(
            name,
            create=f"command -v ssh-agent >/dev/null || {{ echo {shlex.quote(_NO_CLIENT)} >&2; exit 1; }}",
            delete=pulumi.Output.all(address, host.ssh.host_key).apply(
                lambda known: _delete_script(cluster, host, *known)
            ),
            stdin=pulumi.Output.secret(host.ssh.private_key),
            logging=command.local.Logging.STDERR,
            add_previous_output_in_env=False,
            opts=opts,
        )


_SECONDS = 180
_REFUSALS = "denied|verification failed|authentication failures|no matching"
_MEND = (
    "mend that, then destroy again. A key, hostKey or user that was wrong: correct it in the config, and "
    "first have the state take it over: pulumi up --target '**-reset'"
)
_NO_CLIENT = "no ssh on this machine: install the OpenSSH client, `pulumi destroy` resets hosts with it"


def _delete_script(cluster: str, host: Host, address: str, host_key: str) -> str:
    whose = f"CLUSTER={shlex.quote(cluster)}\nNAME={shlex.quote(host.name)}\nROLE={host.role}"
    scripts = "\n".join((script("lib"), claims_script(), script("reset")))
    body = f"{SET_PATH}\nset -eu\numask 077\n{whose}\n{scripts}"
    # The script comes by stdin, since login shells differ in what they make of one in quotes.
    remote = for_any_shell(
        f'script=$(cat); timeout {_SECONDS} sh -c "$script" </dev/null && echo && echo {DONE}'
    )
    if host.ssh.user != "root":
        remote = f"sudo --non-interactive {remote}"
    port = host.ssh.port
    known = f"[{address}]:{port} {host_key}" if port != 22 else f"{address} {host_key}"
    return f"""set -eu
failed() {{ # MEND
  echo "{host.name} ({address}) was not reset: $1" >&2
  exit 1
}}
mend={shlex.quote(_MEND)}
d=$(mktemp -d)
trap 'rm -rf "$d"' EXIT
# On a line of its own, so that a failure ends the script: the rest would use, and end, the user's agent.
agent=$(ssh-agent -s)
eval "$agent" >/dev/null
trap 'rm -rf "$d"; ssh-agent -k >/dev/null 2>&1' EXIT
ssh-add -q -t 60 - || failed "$mend"
echo {shlex.quote(known)} >"$d/known_hosts"
printf '%s\\n' {shlex.quote(body)} |
ssh -p {port} -F /dev/null -o BatchMode=yes -o ConnectTimeout=10 -o UserKnownHostsFile="$d/known_hosts" \\
  -o GlobalKnownHostsFile=/dev/null -o StrictHostKeyChecking=yes -o ServerAliveInterval=10 \\
  {shlex.quote(f"{host.ssh.user}@{address}")} {shlex.quote(remote)} >"$d/out" 2>"$d/said" || {{
  status=$?
  cat "$d/said" >&2
  [ "$status" != 124 ] || failed "it did not end within {_SECONDS} s; destroy again goes on where it stopped"
  # 255 is ssh's own: a host that refuses the login is there, and would be left as it is for nothing.
  if [ "$status" != 255 ] || grep -Eq '{_REFUSALS}' "$d/said"; then failed "$mend"; fi
  echo "{host.name} ({address}) does not answer: it was left as it is" >&2
  exit 0
}}
grep -qx {DONE} "$d/out" || {{
  cat "$d/out" >&2
  failed "the login of {host.ssh.user} runs no command (kubepivot:hosts.{host.name}.user): name one who may \
use sudo, run \\`pulumi up --target '**-reset'\\`, then destroy again"
}}
# What the reset has left, and why.
cat "$d/said" >&2
"""
