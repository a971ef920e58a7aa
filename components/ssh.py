"""Runs idempotent scripts over SSH. The only importer of `pulumi_command.remote`."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pulumi
import pulumi_command as command

from components.archive import File, digest_lines, pack
from components.hosts.host import Host

__all__ = [
    "DONE",
    "SET_PATH",
    "Payload",
    "RemoteDeletion",
    "RemoteStep",
    "command_text",
    "for_any_shell",
]

# sudo's `secure_path` lacks /usr/local/bin on Red Hat's systems, and there the binaries are.
SET_PATH = "export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

DONE = "kubepivot-step-done"
"""The last line of a step that ran. A login may do something else instead and end well, as that of a root
who only says who is to log in."""


@dataclass(frozen=True, kw_only=True)
class Payload:
    """The input of a step: a script and its files, by path below the step's working directory."""

    script: str
    files: Mapping[str, File]
    about: str = ""
    """What a preview shows besides the files' names, in one line."""

    @property
    def all_files(self) -> dict[str, File]:
        """The script is a file like the others: the command's text stays short and bare of content."""
        return {**self.files, "run": File(self.script, mode=0o700)}

    @property
    def digest(self) -> str:
        """Another one with any other content."""
        return hashlib.sha256(digest_lines(self.all_files).encode()).hexdigest()


def command_text(payload: Payload, *, user: str, timeout: int, turns: int = 1) -> str:
    """The text of the remote command: names and digests of what comes by stdin, never content.

    The lock keeps a script that outlived a killed `pulumi up` from running beside its successor. Whoever
    holds it removes what one that was itself killed has left behind, secrets among it. What the login shell
    is does not matter: see `for_any_shell`.
    """
    patience = turns * timeout
    body = f"""{SET_PATH};
set -eu;
umask 077;
exec 9>/run/kubepivot.lock;
flock --wait {patience} 9 || {{
  echo "error: another step has held /run/kubepivot.lock for {patience} s: run again when it has ended" >&2;
  exit 1;
}};
rm -rf /run/kubepivot.??????;
directory=$(mktemp --directory /run/kubepivot.XXXXXX);
trap "rm -rf $directory" EXIT;
cd "$directory";
base64 --decode | tar --extract --gzip --same-permissions --same-owner;
status=0;
timeout {timeout} sh -eu ./run || status=$?;
[ "$status" -ne 124 ] || echo "error: the step did not end within {timeout} s" >&2;
[ "$status" -ne 0 ] || {{ echo; echo {DONE}; }};
exit $status"""
    root = for_any_shell(body)
    if user != "root":
        root = f"sudo --non-interactive {root}"
    about = f"# {payload.about}\n" if payload.about else ""
    return f"{about}{digest_lines(payload.all_files)}\nexec {root}"


def for_any_shell(body: str) -> str:
    """Quotes a shell script as a command that every login shell passes on unchanged.

    In single quotes tcsh still looks for `!`, fish for a backslash, and neither quotes a newline, so the text
    does without. Its lines become one, so each ends where a command does.
    """
    line = " ".join(each.strip() for each in body.splitlines())
    assert not set(line) & set("'!\\"), line
    return f"sh -c '{line}'"


class RemoteStep(command.remote.Command):
    """Runs an idempotent, converging script as root on one host.

    All content, secret or not, comes by stdin as one archive; the script finds it in its working directory
    and the directory goes when the script ends. Any change of script or files runs it again; a new machine
    replaces the step. Standard output is for a few facts in plain text: a script prints no secret. It ends
    after `timeout` seconds, whatever the script does. With `stream_stderr` the user reads what it writes to
    standard error while it runs. With a `change`, of which a preview may know nothing, it runs when that is
    another one, and when it is made only if that is not `unchanged`. Another `token` of an `Intent` runs it
    again, too. `said` is what it printed; a login that ran nothing and ended well is an error.
    """

    said: pulumi.Output[str]

    def __init__(
        self,
        name: str,
        host: Host,
        payload: pulumi.Input[Payload],
        *,
        timeout: int,
        stream_stderr: bool = False,
        change: pulumi.Output[str] | None = None,
        unchanged: str = "",
        token: pulumi.Output[str] | None = None,
        depends_on: Sequence[pulumi.Resource] = (),
        opts: pulumi.ResourceOptions,
    ) -> None:
        settled = pulumi.Output.secret(payload)
        text = pulumi.Output.unsecret(
            settled.apply(lambda p: command_text(p, user=host.ssh.user, timeout=timeout))
        )
        skip = pulumi.Output.from_input(change).apply(lambda known: change is not None and known == unchanged)
        super().__init__(
            name,
            connection=_connection(host),
            create=text if change is None else _unless(skip, text),
            update=None if change is None else text,
            stdin=pulumi.Output.all(settled, change, token).apply(lambda known: _stdin(*known)),
            logging=command.remote.Logging.STDERR if stream_stderr else command.remote.Logging.NONE,
            add_previous_output_in_env=False,
            triggers=[host.instance_id],
            opts=pulumi.ResourceOptions.merge(
                opts, pulumi.ResourceOptions(depends_on=list(depends_on), delete_before_replace=True)
            ),
        )
        self.said = pulumi.Output.all(self.stdout, skip).apply(lambda known: _said(name, host, *known))


class RemoteDeletion(command.remote.Command):
    """Does nothing until it is deleted; then it runs such a script on a host that others share."""

    def __init__(
        self,
        name: str,
        host: Host,
        payload: pulumi.Input[Payload],
        *,
        timeout: int,
        turns: int,
        opts: pulumi.ResourceOptions,
    ) -> None:
        settled = pulumi.Output.secret(payload)
        super().__init__(
            name,
            connection=_connection(host),
            delete=pulumi.Output.unsecret(
                settled.apply(lambda p: command_text(p, user=host.ssh.user, timeout=timeout, turns=turns))
            ),
            stdin=settled.apply(_stdin),
            logging=command.remote.Logging.NONE,
            add_previous_output_in_env=False,
            opts=opts,
        )


def _connection(host: Host) -> command.remote.ConnectionArgs:
    return command.remote.ConnectionArgs(
        host=host.ssh.host,
        user=host.ssh.user,
        port=host.ssh.port,
        private_key=pulumi.Output.secret(host.ssh.private_key),
        host_key=host.ssh.host_key,
        dial_error_limit=host.ssh.dial_tries,
        per_dial_timeout=10,
    )


def _stdin(payload: Payload, change: str | None = None, token: str | None = None) -> str:
    # Not in the command's text, since a preview may not know them: it names the other files all the same.
    unseen = {"change": change, "token": token}
    files = payload.all_files | {name: File(text) for name, text in unseen.items() if text is not None}
    return base64.b64encode(pack(files)).decode()


def _unless(skip: pulumi.Output[bool], text: pulumi.Output[str]) -> pulumi.Output[str]:
    # Of an input that is nothing the types know only where it is so at once.
    return pulumi.Output.all(skip, text).apply(lambda known: None if known[0] else known[1])


def _said(step: str, host: Host, stdout: str | None, skipped: bool) -> str:
    if stdout is None or (skipped and not stdout):
        return ""  # in a destroy, or a targeted update, that runs the program: the step is gone
    said, done, _ = f"\n{stdout}\n".partition(f"\n{DONE}\n")
    if not done:
        user, heard = host.ssh.user, " ".join(stdout.split())[:200]
        # It is in the state as done by now. With another user it is another step, which runs.
        raise pulumi.RunError(
            f"{step} did nothing: the login of {user} at {host.name} runs no command, but says: "
            f"{heard or 'nothing'}\nset kubepivot:hosts.{host.name}.user to a user who may use sudo without "
            f"a password; or let {user} run commands there, then: pulumi up --replace '**{step}'"
        )
    return said.strip("\n")
