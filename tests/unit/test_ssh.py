"""What a step sends to a host, and what the host's shell makes of it."""

from __future__ import annotations

import base64
import fcntl
import re
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pulumi
import pytest

from components.archive import File, pack
from components.hosts.host import Host, Ssh
from components.ssh import DONE, Payload, RemoteStep, command_text
from tests.unit.recorder import REMOTE, Secret, record, revealed, unpacked
from tests.unit.sandbox import Sandbox, login_shells

SECRET = "-----BEGIN PRIVATE KEY-----"
TOOLS = ("base64", "cat", "flock", "gzip", "ls", "mktemp", "rm", "sh", "sleep", "stat", "tar", "timeout")


@pytest.fixture
def sandbox(tmp_path: Path) -> Sandbox:
    sandbox = Sandbox(tmp_path)
    sandbox.real(*TOOLS)
    sandbox.path("/run").mkdir()
    sandbox.path("/usr/local").mkdir(parents=True)
    sandbox.path("/usr/local/sbin").symlink_to(sandbox.root.parent / "bin")
    return sandbox


def _payload(script: str, **files: File) -> Payload:
    return Payload(script=script, files=files)


def _run(sandbox: Sandbox, payload: Payload, *, user: str = "root", timeout: int = 10) -> tuple[int, str]:
    done = _done(sandbox, payload, user=user, timeout=timeout)
    said, mark, rest = done.stdout.partition(f"\n{DONE}\n")
    assert (mark != "", rest) == (done.returncode == 0, ""), done
    return done.returncode, said


def _done(
    sandbox: Sandbox, payload: Payload, *, user: str = "root", timeout: int = 10
) -> subprocess.CompletedProcess[str]:
    text = command_text(payload, user=user, timeout=timeout)
    # Only root may give files away.
    text = text.replace(" --same-owner", "")
    return sandbox.run(text, stdin=base64.b64encode(pack(payload.all_files)).decode())


@pytest.mark.parametrize("user", ["root", "admin"])
def test_a_script_finds_its_files_and_leaves_nothing_behind(sandbox: Sandbox, user: str) -> None:
    sandbox.fake("sudo", 'shift; exec "$@"')
    payload = _payload("cat env; stat -c %a key env; pwd", key=File("k", mode=0o600), env=File("A=1\n"))
    code, output = _run(sandbox, payload, user=user)
    assert code == 0
    assert output.startswith(f"A=1\n600\n644\n{sandbox.path('/run')}/kubepivot.")
    assert [path.name for path in sandbox.path("/run").iterdir()] == ["kubepivot.lock"]


def test_a_user_who_is_not_root_asks_for_root_without_a_password() -> None:
    text = command_text(_payload("true"), user="admin", timeout=10)
    assert "\nexec sudo --non-interactive sh -c " in text
    assert "sudo" not in command_text(_payload("true"), user="root", timeout=10)


@pytest.mark.parametrize("user", ["root", "admin"])
def test_no_login_shell_finds_anything_to_expand(user: str) -> None:
    """In single quotes tcsh looks for `!` and a newline, fish for a backslash."""
    text = command_text(_payload("echo 'it is !'", env=File("A='\\n'\n")), user=user, timeout=10)
    *comments, command = text.splitlines()
    assert all(re.fullmatch(r"# [\w.]+ [0-9a-f]{16} 0[67][04][04] 0", line) for line in comments)
    assert re.fullmatch(r"exec (sudo --non-interactive )?sh -c '[^'!\\]+'", command)


@pytest.mark.parametrize("shell", login_shells())
def test_the_login_shell_may_be_any(sandbox: Sandbox, shell: str) -> None:
    payload = _payload("cat env; exit 3", env=File("A='b!' \\\n"))
    text = sandbox.moved(command_text(payload, user="root", timeout=10).replace(" --same-owner", ""))
    done = subprocess.run(
        [shell, "-c", text],
        env={"PATH": str(sandbox.root.parent / "bin"), "HOME": str(sandbox.root)},
        input=base64.b64encode(pack(payload.all_files)).decode(),
        capture_output=True,
        text=True,
        timeout=20,
    )
    assert (done.returncode, done.stdout.splitlines()[0], done.stderr) == (3, "A='b!' \\", "")


def test_what_is_in_usr_local_is_found_whatever_sudo_says(sandbox: Sandbox) -> None:
    sandbox.fake("sudo", 'shift; PATH=/sbin:/bin:/usr/sbin:/usr/bin exec "$@"')
    tool = sandbox.path("/usr/local/bin/kubectl")
    tool.parent.mkdir()
    tool.write_text("#!/bin/sh\necho found\n")
    tool.chmod(0o755)
    assert _run(sandbox, _payload("kubectl"), user="admin") == (0, "found\n")


def test_a_script_that_fails_fails_the_step_and_leaves_nothing_behind(sandbox: Sandbox) -> None:
    assert _run(sandbox, _payload("echo before\nfalse\necho after")) == (1, "before\n")
    assert [path.name for path in sandbox.path("/run").iterdir()] == ["kubepivot.lock"]


def test_what_a_killed_step_has_left_behind_goes_with_the_next_one(sandbox: Sandbox) -> None:
    left = sandbox.path("/run") / "kubepivot.AbCd12"
    left.mkdir()
    (left / "key").write_text(SECRET)
    code, output = _run(sandbox, _payload("ls -d ../kubepivot.*"))
    assert (code, left.exists()) == (0, False)
    assert len(output.splitlines()) == 2  # the lock and its own


def test_an_unset_variable_is_an_error(sandbox: Sandbox) -> None:
    code, _ = _run(sandbox, _payload('echo "$nowhere_set"'))
    assert code != 0


def test_a_script_ends_at_its_deadline(sandbox: Sandbox) -> None:
    done = _done(sandbox, _payload("sleep 60"), timeout=1)
    assert (done.returncode, done.stdout) == (124, "")
    assert done.stderr == "error: the step did not end within 1 s\n"


def test_two_scripts_do_not_run_at_once(sandbox: Sandbox) -> None:
    with sandbox.path("/run/kubepivot.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        done = _done(sandbox, _payload("echo ran"), timeout=1)
        assert (done.returncode, done.stdout) == (1, "")
        assert "error: another step has held " in done.stderr
    assert _run(sandbox, _payload("echo ran"), timeout=1) == (0, "ran\n")


def test_a_host_without_room_loses_nothing(sandbox: Sandbox, tmp_path: Path) -> None:
    """The working directory goes when the script ends, and no other: not the home that the shell began in."""
    home = tmp_path / "home"
    home.mkdir()
    (home / "precious").write_text("")
    sandbox.fake("mktemp", "echo 'mktemp: No space left on device' >&2; exit 1")
    done = sandbox.run(command_text(_payload("echo ran"), user="root", timeout=10), here=home)
    assert done.returncode != 0
    assert "ran" not in done.stdout
    assert (home / "precious").exists()


def test_the_text_names_files_with_digests_and_has_no_content() -> None:
    payload = _payload("echo marker-of-the-script", key=File(SECRET, mode=0o600, owner=65532))
    text = command_text(payload, user="root", timeout=10)
    assert SECRET not in text and "marker-of-the-script" not in text
    lines = [line.split() for line in text.splitlines() if line.startswith("# ")]
    assert [(path, mode, owner) for _, path, _, mode, owner in lines] == [
        ("key", "0600", "65532"),
        ("run", "0700", "0"),
    ]


def test_the_text_changes_with_every_file_and_with_the_script() -> None:
    payloads = [
        _payload("one", env=File("A=1")),
        _payload("one", env=File("A=2")),
        _payload("other", env=File("A=1")),
        _payload("one", env=File("A=1", mode=0o600)),
    ]
    assert len({command_text(payload, user="root", timeout=10) for payload in payloads}) == len(payloads)


def _host(**changes: Any) -> Host:
    ssh: dict[str, Any] = {
        "host": "192.0.2.1",
        "user": "root",
        "port": 2222,
        "private_key": SECRET,
        "host_key": "ssh-ed25519 AAAA",
        "dial_tries": 7,
    }
    return Host(
        name="node",
        role="worker",
        address="192.0.2.1",
        ssh=Ssh(**ssh | changes),
        instance_id="machine one",
        ephemeral=False,
    )


def _step(payload: Payload, *, secret: bool = False, **changes: Any) -> Mapping[str, Any]:
    def build() -> None:
        given = pulumi.Output.secret(payload) if secret else payload
        RemoteStep("step", _host(**changes), given, timeout=10, opts=pulumi.ResourceOptions())

    (step,) = record(build).of(REMOTE)
    return step.inputs


@pytest.mark.parametrize("secret", [False, True])
def test_all_content_is_secret_and_the_text_is_not(secret: bool) -> None:
    payload = _payload("true", key=File(SECRET, mode=0o600))
    inputs = _step(payload, secret=secret)
    assert isinstance(inputs["stdin"], Secret)
    assert unpacked(revealed(inputs["stdin"])) == {"key": SECRET.encode(), "run": b"true"}
    assert inputs["create"] == command_text(payload, user="root", timeout=10)


def test_the_connection_is_pinned_patient_and_secret() -> None:
    inputs = _step(_payload("true"))
    assert isinstance(inputs["connection"], Secret)
    assert revealed(inputs["connection"]) == {
        "host": "192.0.2.1",
        "user": "root",
        "port": 2222,
        "privateKey": SECRET,
        "hostKey": "ssh-ed25519 AAAA",
        "dialErrorLimit": 7,
        "perDialTimeout": 10,
    }


def test_another_machine_replaces_a_step_and_nothing_else_does() -> None:
    steps = [_step(_payload("one")), _step(_payload("other"), user="admin", port=22)]
    assert [step["triggers"] for step in steps] == [["machine one"], ["machine one"]]


# A root who is only there to say so, as cloud images have one.
REFUSAL = 'Please login as the user "debian" rather than the user "root".\n'


@pytest.mark.parametrize("said", ["", REFUSAL, f"{REFUSAL}not-{DONE}"])
def test_a_login_that_runs_nothing_is_an_error_that_names_the_user(said: str) -> None:
    def build() -> None:
        RemoteStep("metal-node-node", _host(), _payload("true"), timeout=10, opts=pulumi.ResourceOptions())

    with pytest.raises(pulumi.RunError, match="the login of root at node runs no command") as error:
        record(build, answers={REMOTE: lambda *_: {"stdout": said}})
    assert said.strip()[:40] in str(error.value)
    assert "set kubepivot:hosts.node.user to a user who may use sudo" in str(error.value)
    assert "pulumi up --replace '**metal-node-node'" in str(error.value)


@pytest.mark.parametrize("printed", ["Welcome!", "Welcome!\n", ""])
def test_what_a_login_shell_prints_first_hides_no_mark(sandbox: Sandbox, printed: str) -> None:
    done = _done(sandbox, _payload("true"))
    assert _said_with(printed + done.stdout) == printed.strip()


def _said_with(stdout: str) -> str:
    def build() -> None:
        step = RemoteStep("step", _host(), _payload("true"), timeout=10, opts=pulumi.ResourceOptions())
        pulumi.export("said", step.said)

    said: str = record(build, answers={REMOTE: lambda *_: {"stdout": stdout}}).outputs["said"]
    return said


def test_what_a_step_said_is_without_the_mark() -> None:
    assert _said_with(f"Welcome!\na=1\n{DONE}\nGood bye") == "Welcome!\na=1"
