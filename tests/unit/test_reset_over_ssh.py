"""How a destroy reaches a host, run with made-up commands of this machine."""

from __future__ import annotations

from pathlib import Path

import pytest

from components.ssh import DONE
from tests.cases import read
from tests.unit.recorder import ANSWERS, LOCAL, program, ran, revealed
from tests.unit.sandbox import Sandbox, login_shells

# All that a shell might make something of.
ODD = """if ! cat <<'END' >/var/odd
it's a \\b! *
END
then exit 1; fi
[ ! -e /var/fail ] || exit 7
"""


@pytest.fixture
def here(tmp_path: Path) -> Sandbox:
    here = Sandbox(tmp_path)
    here.real("cat", "grep", "mktemp", "rm")
    here.fake("ssh-agent", 'case $1 in -s) echo "SSH_AUTH_SOCK=agent; export SSH_AUTH_SOCK" ;; esac')
    here.fake("ssh-add", "cat >/var/key")
    here.path("/var").mkdir()
    return here


def _destroy(here: Sandbox, host: str, ssh: str) -> tuple[int, str]:
    here.fake("ssh", f'printf "%s\\n" "$@" >/var/arguments\ncat >/var/script\n{ssh}')
    reset = ran("baremetal").only(f"metal-{host}-reset")
    done = here.run(reset.inputs["delete"], stdin=revealed(reset.inputs["stdin"]))
    return done.returncode, done.stderr


def test_a_host_is_reset_over_ssh_with_its_key_pinned(here: Sandbox) -> None:
    assert _destroy(here, "gpu", f"echo {DONE}") == (0, "")
    arguments = here.path("/var/arguments").read_text()
    assert "admin@192.168.7.21\n" in arguments
    assert arguments.startswith("-p\n2222\n")
    assert "StrictHostKeyChecking=yes\n" in arguments
    assert "\nsudo --non-interactive sh -c 'script=" in arguments
    brought = here.path("/var/script").read_text()
    assert "CLUSTER=metal\nNAME=gpu\n" in brought
    assert f"PATH={here.root}/usr/local/sbin:{here.root}/usr/local/bin:" in brought
    assert "PRIVATE KEY" not in arguments
    assert "PRIVATE KEY" in here.path("/var/key").read_text()


def test_without_an_agent_of_its_own_the_users_is_not_touched(here: Sandbox) -> None:
    here.fake("ssh-agent", 'echo "$*" >>/var/agent; exit 1')
    code, _ = _destroy(here, "gpu", "exit 0")
    assert code == 1
    assert here.path("/var/agent").read_text() == "-s\n"
    assert not here.path("/var/key").exists()
    assert not here.path("/var/arguments").exists()


def test_a_key_that_the_agent_refuses_is_told_with_its_mend(here: Sandbox) -> None:
    here.fake("ssh-add", "cat >/dev/null; echo 'Error loading key: error in libcrypto' >&2; exit 1")
    code, error = _destroy(here, "gpu", "exit 0")
    assert code == 1
    assert "error in libcrypto\ngpu (192.168.7.21) was not reset: mend that" in error
    assert "pulumi up --target '**-reset'" in error
    assert not here.path("/var/arguments").exists()


def test_what_a_reset_has_left_is_told(here: Sandbox) -> None:
    assert _destroy(here, "gpu", f"echo left as it is: theirs >&2; echo {DONE}") == (
        0,
        "left as it is: theirs\n",
    )


def test_root_needs_no_sudo(here: Sandbox) -> None:
    assert _destroy(here, "alpha", f"echo {DONE}") == (0, "")
    assert "sudo --" not in here.path("/var/arguments").read_text()


def test_the_login_shell_may_be_any(here: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("components.reset.script", lambda _: ODD)
    delete = program(read("baremetal"), answers={}).only("metal-alpha-reset").inputs["delete"]
    here.real("sh", "timeout")
    here.path("/usr/local").mkdir(parents=True)
    here.path("/usr/local/sbin").symlink_to(here.root.parent / "bin")
    for shell in login_shells():
        # Behind a dash, where the sandbox leaves an absolute path alone.
        here.fake("ssh", f'for text; do :; done; exec "${{none-{shell}}}" -c "$text"')
        here.path("/var/odd").write_text("")
        done = here.run(delete, stdin="key")
        assert (done.returncode, done.stderr) == (0, ""), shell
        assert here.path("/var/odd").read_text() == "it's a \\b! *\n", shell
        here.write("/var/fail")
        assert "alpha (192.168.7.11) was not reset: mend that" in here.run(delete, stdin="key").stderr, shell
        here.path("/var/fail").unlink()


def test_a_login_that_runs_nothing_is_no_reset(here: Sandbox) -> None:
    """With exit status 0, as a root has it who only says who is to log in."""
    code, error = _destroy(here, "alpha", "echo Please login as the user debian.")
    assert code == 1
    assert error.startswith("Please login as the user debian.\nalpha (192.168.7.11) was not reset: ")
    assert "kubepivot:hosts.alpha.user" in error


@pytest.mark.parametrize(
    "said",
    [
        "ssh: connect to host 192.168.7.21 port 2222: Connection refused",
        "ssh: connect to host 192.168.7.21 port 2222: No route to host",
        "ssh: connect to host 192.168.7.21 port 2222: Connection timed out",
        "Timeout, server 192.168.7.21 not responding.",
    ],
)
def test_a_dead_host_is_told_and_passed_over(here: Sandbox, said: str) -> None:
    assert _destroy(here, "gpu", f'echo "{said}" >&2; exit 255') == (
        0,
        f"{said}\ngpu (192.168.7.21) does not answer: it was left as it is\n",
    )


def test_a_changed_host_key_replaces_no_reset_and_a_destroy_uses_the_new_one() -> None:
    raw = read("baremetal")
    old, new = raw["hosts"]["gpu"]["hostKey"], raw["hosts"]["alpha"]["hostKey"]
    raw["hosts"]["gpu"]["hostKey"] = new
    before, after = (run.only("metal-gpu-reset") for run in (ran("baremetal"), program(raw)))
    assert before.urn == after.urn
    for each in (before, after):
        assert "triggers" not in each.inputs  # any other input is updated in place
        assert not each.delete_before_replace
    assert old in before.inputs["delete"] and old not in after.inputs["delete"]
    assert new in after.inputs["delete"]


FAILURES = {
    "login refused": ("admin@192.168.7.21: Permission denied (publickey).", 255),
    "another host key": (
        "@    WARNING: REMOTE HOST IDENTIFICATION HAS CHANGED!     @\nHost key verification failed.",
        255,
    ),
    "no sudo": ("sudo: a password is required", 1),
    "script": ("umount: pods/1: Permission denied", 32),
    "deadline": ("", 124),
}
"""What `ssh` says of a host that is there, and its status."""


@pytest.mark.parametrize("failure", FAILURES)
def test_a_host_that_is_there_and_was_not_reset_fails_the_destroy(here: Sandbox, failure: str) -> None:
    said, status = FAILURES[failure]
    code, error = _destroy(here, "gpu", f'printf "%s\\n" "{said}" >&2; exit {status}')
    assert code not in (0, 255)
    assert error.startswith(f"{said}\ngpu (192.168.7.21) was not reset: ")
    assert "does not answer" not in error
    assert ("mend that" in error) == (status != 124)


def test_a_reset_that_took_too_long_can_go_on(here: Sandbox) -> None:
    code, error = _destroy(here, "gpu", "exit 124")
    assert code == 1
    assert "was not reset: it did not end within 180 s; destroy again goes on where it stopped" in error
    assert "timeout 180 sh" in here.path("/var/arguments").read_text()


def test_a_destroy_that_runs_the_program_passes_over_what_is_gone() -> None:
    """The engine then answers for a resource that it has deleted already with no outputs at all."""
    run = program(read("baremetal"), answers=dict.fromkeys(ANSWERS, lambda _, __: {}))
    hosts = read("baremetal")["hosts"]
    assert {each.name for each in run.of(LOCAL)} == {f"metal-{host}-reset" for host in hosts}
