"""Pulumi in the lab: its environment and stack, and a dead run's lock."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from lab import pins, pulumi
from lab.cache import data_dir
from lab.errors import LabError
from lab.progress import Progress
from tests.unit.fakepulumi import STACK, FakePulumi, new_user
from tests.unit.sites import FakeGo


@pytest.fixture(autouse=True)
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakePulumi:
    return new_user(tmp_path, monkeypatch)


def make_stack(project: str = "kubepivot", stack: str = "dev") -> None:
    file = data_dir() / f"state/.pulumi/stacks/{project}/{stack}.json"
    file.parent.mkdir(parents=True)
    file.write_text("{}")


class TestEnvironment:
    def test_is_all_that_a_shell_needs(self, tmp_path: Path) -> None:
        found = pulumi.environment("dev")
        own = tmp_path / "home/.local/share/kubepivot"
        assert found["PATH"].split(":")[0] == str(Path(sys.executable).parent)
        assert found["PULUMI_HOME"] == str(own / "pulumi")
        assert found["PULUMI_BACKEND_URL"] == f"file://{own}/state?metadata=skip"
        assert found["PULUMI_STACK"] == "dev"
        assert found["KUBECONFIG"] == f"{own}/dev.kubeconfig"
        assert own.stat().st_mode & 0o777 == 0o700

    def test_is_the_same_the_second_time(self, monkeypatch: pytest.MonkeyPatch) -> None:
        first = pulumi.environment("dev")
        monkeypatch.setenv("PATH", first["PATH"])
        assert pulumi.environment("dev") == first

    def test_leaves_an_installed_tool_where_it_is_in_the_path(self, tmp_path: Path) -> None:
        entries = pulumi.environment("dev")["PATH"].split(":")
        assert entries[1:] == [str(tmp_path / "bin"), "/usr/bin", "/bin"]

    def test_passphrase_is_made_once_for_the_user_alone(self) -> None:
        file = Path(pulumi.environment("dev")["PULUMI_CONFIG_PASSPHRASE_FILE"])
        passphrase = file.read_text()
        assert len(passphrase) >= 43
        assert file.stat().st_mode & 0o777 == 0o600
        pulumi.environment("dev")
        assert file.read_text() == passphrase

    def test_leaves_out_what_the_user_has_for_other_stacks(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("PULUMI_CONFIG_PASSPHRASE", "another")
        assert "PULUMI_CONFIG_PASSPHRASE" not in pulumi.full_environment("dev")

    @pytest.mark.parametrize(
        ("stack", "says"), [("prod", "has no file Pulumi.prod.yaml"), ("../x", "is no stack name")]
    )
    def test_wants_a_stack_that_there_is(self, stack: str, says: str) -> None:
        with pytest.raises(LabError, match=says) as it:
            pulumi.environment(stack)
        assert it.value.mend
        assert not data_dir().exists()


class TestStack:
    def test_is_made_once_and_its_file_stays_as_it_is(self, fake: FakePulumi, tmp_path: Path) -> None:
        state = tmp_path / "home/.local/share/kubepivot/state/.pulumi/stacks/kubepivot"
        fake.does(
            f"""
            [ "$1 $2" = "stack init" ] && echo "encryptionsalt: v1:x" >> Pulumi.dev.yaml &&
              mkdir -p {state} && touch {state}/dev.json
            [ "$1 $2" = "stack output" ] && echo "{{}}"
            true"""
        )
        pulumi.up("dev", Progress())
        pulumi.up("dev", Progress())
        assert [call.split(" --")[0] for call in fake.calls] == [
            "stack init dev",
            "up",
            "stack output",
            "up",
            "stack output",
        ]
        assert (tmp_path / "checkout/Pulumi.dev.yaml").read_text() == STACK

    def test_update_takes_a_copy_of_the_file(self, fake: FakePulumi) -> None:
        make_stack()
        fake.does('[ "$verb" = stack ] && echo "{}"; true')
        pulumi.up("dev", Progress())
        config = data_dir() / "config/Pulumi.dev.yaml"
        assert f"--config-file {config}" in fake.calls[0]
        assert config.read_text() == STACK
        assert config.stat().st_mode & 0o777 == 0o600

    @pytest.mark.parametrize(
        ("secret", "kept"), [("", False), ("  kubepivot:token:\n    secure: v1:abc\n", True)]
    )
    def test_salt_in_the_file_counts_only_with_a_secret_there(
        self, secret: str, kept: bool, fake: FakePulumi, tmp_path: Path
    ) -> None:
        make_stack()
        fake.does('[ "$verb" = stack ] && echo "{}"; true')
        (tmp_path / "checkout/Pulumi.dev.yaml").write_text(f"{STACK}{secret}encryptionsalt: v1:other\n")
        pulumi.up("dev", Progress())
        assert ("encryptionsalt" in (data_dir() / "config/Pulumi.dev.yaml").read_text()) is kept

    def test_kubeconfig_is_written_for_the_user_alone(self, fake: FakePulumi) -> None:
        make_stack()
        fake.does(f"[ $verb = stack ] && echo '{json.dumps({'kubeconfig': 'apiVersion: v1'})}'; true")
        with pytest.raises(LabError, match="has no kubeconfig"):
            pulumi.read_kubeconfig("dev")
        pulumi.up("dev", Progress())
        assert pulumi.read_kubeconfig("dev") == "apiVersion: v1"
        assert pulumi.kubeconfig_file("dev").stat().st_mode & 0o777 == 0o600

    @staticmethod
    def exports(fake: FakePulumi, *resources: dict[str, object]) -> None:
        """Let `pulumi stack export` show these resources."""
        state = json.dumps({"deployment": {"resources": resources}})
        fake.does(f"[ $verb = stack ] && echo '{state}'; true")

    def test_destroy_takes_the_stack_and_its_kubeconfig(self, fake: FakePulumi) -> None:
        make_stack()
        pulumi.kubeconfig_file("dev").write_text("apiVersion: v1")
        self.exports(fake, {"urn": "urn:pulumi:dev::kubepivot::tls:index/privateKey:PrivateKey::dev-ca"})
        pulumi.destroy("dev", Progress())
        assert fake.calls[1].startswith("destroy --yes")
        assert fake.calls[2].startswith("stack rm --yes --preserve-config")
        assert not pulumi.kubeconfig_file("dev").exists()

    def test_destroy_with_protected_resources_deletes_nothing(self, fake: FakePulumi, tmp_path: Path) -> None:
        make_stack(stack="prod")
        (tmp_path / "checkout/Pulumi.prod.yaml").write_text(STACK)
        kind = "urn:pulumi:prod::kubepivot::tls:index/privateKey:PrivateKey"
        droplet = (
            "urn:pulumi:prod::kubepivot::kubepivot:cluster:Cluster$digitalocean:index/droplet:Droplet::prod-a"
        )
        self.exports(
            fake,
            {"urn": f"{kind}::prod-ca", "protect": True},
            {"urn": f"{kind}::prod-leaf", "protect": False},
            {"urn": droplet, "protect": True},
        )
        with pytest.raises(LabError, match="has protected resources: prod-ca, prod-a; nothing is") as it:
            pulumi.destroy("prod", Progress())
        keys = "kubepivot:digitalOcean.protect and kubepivot:pki.protect"
        assert f"set {keys} to false in Pulumi.prod.yaml" in it.value.mend
        assert "`make up STACK=prod`, then `make down STACK=prod`" in it.value.mend
        assert [call.split(" --")[0] for call in fake.calls] == ["stack export"]

    def test_cluster_has_the_name_in_the_file_or_the_stacks(self, tmp_path: Path) -> None:
        assert pulumi.cluster_name("dev") == "dev"
        (tmp_path / "checkout/Pulumi.dev.yaml").write_text("config:\n  kubepivot:name: blue\n")
        assert pulumi.cluster_name("dev") == "blue"
        (tmp_path / "checkout/Pulumi.dev.yaml").write_text("config: [")
        with pytest.raises(LabError, match=r"Pulumi\.dev\.yaml is not YAML"):
            pulumi.cluster_name("dev")

    @pytest.mark.parametrize("text", ["config: [1]\n", "lab\n", "config: lab\n"])
    def test_file_without_a_map_of_settings_is_an_error(self, text: str, tmp_path: Path) -> None:
        (tmp_path / "checkout/Pulumi.dev.yaml").write_text(text)
        with pytest.raises(LabError, match=r"Pulumi\.dev\.yaml has no map of settings"):
            pulumi.has_lab_hosts("dev")

    @pytest.mark.parametrize(
        ("settings", "has"),
        [
            ("{kubepivot:platform: lab}", True),
            ("{kubepivot:platform: lab, kubepivot:mode: cluster}", True),
            ("{kubepivot:platform: lab, kubepivot:mode: render}", False),
            ("{kubepivot:platform: baremetal}", False),
            ("{}", False),
        ],
    )
    def test_lab_hosts_are_what_the_config_wants(self, settings: str, has: bool, tmp_path: Path) -> None:
        (tmp_path / "checkout/Pulumi.dev.yaml").write_text(f"config: {settings}\n")
        assert pulumi.has_lab_hosts("dev") is has

    @pytest.mark.parametrize(
        ("settings", "copies"),
        [
            ("{kubepivot:backup: {keep: 3, s3: {bucket: backups}}}", True),
            ("{kubepivot:backup: {keep: 3}}", False),
            ("{kubepivot:backup: wrong}", False),
            ("{}", False),
        ],
    )
    def test_copies_of_snapshots_are_what_the_config_wants(
        self, settings: str, copies: bool, tmp_path: Path
    ) -> None:
        (tmp_path / "checkout/Pulumi.dev.yaml").write_text(f"config: {settings}\n")
        assert pulumi.copies_snapshots("dev") is copies

    @pytest.mark.parametrize(
        ("settings", "version"),
        [
            ("{}", pins.NEWEST.kubernetes),
            *((f"{{kubepivot:kubernetesVersion: {version}}}", version) for version in pins.RELEASES),
        ],
    )
    def test_release_is_the_configs_or_the_newest(self, settings: str, version: str, tmp_path: Path) -> None:
        (tmp_path / "checkout/Pulumi.dev.yaml").write_text(f"config: {settings}\n")
        assert pulumi.release("dev") == pins.RELEASES[version]

    @pytest.mark.parametrize("value", ["1.35", "1.1.1", "[1]", "null", "{secure: AAAB}"])
    def test_unknown_release_is_an_error(self, value: str, tmp_path: Path) -> None:
        (tmp_path / "checkout/Pulumi.dev.yaml").write_text(
            f"config: {{kubepivot:kubernetesVersion: {value}}}\n"
        )
        with pytest.raises(LabError, match=r"the lab has no Kubernetes ") as it:
            pulumi.release("dev")
        assert ", ".join(pins.RELEASES) in it.value.mend


@pytest.fixture
def sigint() -> Iterator[None]:
    """Ctrl-C as at a terminal: what a shell puts in the background inherits that it is ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


class TestUpdate:
    def test_shows_slow_resources_the_summary_and_the_diagnostics(
        self, fake: FakePulumi, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        make_stack()
        (tmp_path / "out").write_text(
            """Updating (dev):

 +  pulumi:pulumi:Stack kubepivot-dev creating (0s)
 +  command:remote:Command dev-worker-1-node creating (0s)
 +  tls:index/privateKey:PrivateKey dev-ca created (0.50s)
 +  command:remote:Command dev-worker-1-node created (12s)
 ++ kubernetes:apps/v1:DaemonSet flannel created replacement (1m3s)
Diagnostics:
  command:remote:Command (dev-worker-1-node):
    warning: slow

Resources:
    + 3 created

Duration: 1m4s

The resources in the stack have been deleted
"""
        )
        fake.does(f'[ "$verb" = stack ] && echo "{{}}" || cat {tmp_path}/out')
        pulumi.up("dev", Progress())
        assert capsys.readouterr().err.splitlines() == [
            "Command dev-worker-1-node created (12s)",
            "DaemonSet flannel created replacement (1m3s)",
            "  command:remote:Command (dev-worker-1-node):",
            "    warning: slow",
            "    + 3 created",
        ]

    def test_that_fails_is_an_error(self, fake: FakePulumi) -> None:
        make_stack()
        fake.does("exit 255")
        with pytest.raises(LabError, match="`pulumi up` of the stack dev ended with code 255") as it:
            pulumi.up("dev", Progress())
        assert "run again: it continues" in it.value.mend

    def test_that_is_killed_shows_its_last_lines(
        self, fake: FakePulumi, capsys: pytest.CaptureFixture[str]
    ) -> None:
        make_stack()
        fake.does("echo panic: the engine; kill -9 $$")
        with pytest.raises(LabError, match="ended with signal 9"):
            pulumi.up("dev", Progress())
        assert "panic: the engine" in capsys.readouterr().err

    def test_that_is_killed_leaves_no_process(self, fake: FakePulumi, tmp_path: Path) -> None:
        make_stack()
        fake.does(f"sleep 60 & echo $! > {tmp_path}/pid; kill -9 $$")
        with pytest.raises(LabError, match="ended with signal 9"):
            pulumi.up("dev", Progress())
        assert not Path(f"/proc/{(tmp_path / 'pid').read_text().strip()}/exe").exists()

    def test_that_is_interrupted_lets_pulumi_finish(
        self,
        fake: FakePulumi,
        capsys: pytest.CaptureFixture[str],
        monkeypatch: pytest.MonkeyPatch,
        sigint: None,
    ) -> None:
        make_stack()
        fake.does(
            "trap 'echo Resources:; echo \"    1 finished\"; exit 1' INT\n"
            "echo ' +  command:remote:Command first creating (0s)'; sleep 60 & wait"
        )
        # As soon as the first line is shown.
        monkeypatch.setattr(Progress, "detail", lambda *_: os.kill(os.getpid(), signal.SIGINT))
        with pytest.raises(KeyboardInterrupt):
            pulumi.up("dev", Progress())
        assert "    1 finished" in capsys.readouterr().err

    def test_has_a_deadline(self, fake: FakePulumi, monkeypatch: pytest.MonkeyPatch) -> None:
        make_stack()
        monkeypatch.setattr(pulumi, "UPDATE_SECONDS", 0.2)
        fake.does("exec sleep 60")
        with pytest.raises(LabError, match="ended with signal 15"):
            pulumi.up("dev", Progress())

    def test_that_is_only_shown_has_a_deadline_too(
        self, fake: FakePulumi, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        make_stack()
        monkeypatch.setattr(pulumi, "UPDATE_SECONDS", 0.2)
        fake.does("exec sleep 60")
        with pytest.raises(LabError, match="`pulumi preview` of the stack dev did not end"):
            pulumi.preview("dev")


class TestLock:
    def lock(self, *, pid: int, hostname: str = "") -> Path:
        make_stack()
        file = data_dir() / "state/.pulumi/locks/organization/kubepivot/dev/1.json"
        file.parent.mkdir(parents=True)
        file.write_text(
            json.dumps({"pid": pid, "hostname": hostname or socket.gethostname(), "username": "u"})
        )
        return file

    @pytest.fixture
    def alive(self, tmp_path: Path) -> Iterator[int]:
        """A process that is called pulumi."""
        shutil.copy("/bin/sleep", tmp_path / "pulumi")
        process = subprocess.Popen([tmp_path / "pulumi", "60"])
        yield process.pid
        process.kill()
        process.wait()

    def test_of_a_dead_run_is_released(self, fake: FakePulumi) -> None:
        ended = subprocess.Popen(["/bin/true"])
        ended.wait()
        lock = self.lock(pid=ended.pid)
        fake.does(f'[ "$verb" = cancel ] && rm {lock}; [ "$verb" = stack ] && echo "{{}}"; true')
        pulumi.up("dev", Progress())
        assert fake.calls[0] == "cancel --yes --non-interactive"
        assert fake.calls[1].startswith("up ")

    def test_of_a_pid_that_is_another_programs_by_now_is_released(self, fake: FakePulumi) -> None:
        self.lock(pid=os.getpid())
        fake.does('[ "$verb" = stack ] && echo "{}"; true')
        pulumi.up("dev", Progress())
        assert fake.calls[0].startswith("cancel ")

    @pytest.mark.parametrize("content", [b"", b'{"pid": 1, "host', b"\0" * 200, b"\xff\xfe", b"[]", b"{}"])
    def test_that_a_power_cut_has_torn_is_released(self, content: bytes, fake: FakePulumi) -> None:
        self.lock(pid=1).write_bytes(content)
        fake.does('[ "$verb" = stack ] && echo "{}"; true')
        pulumi.up("dev", Progress())
        assert fake.calls[0].startswith("cancel ")
        assert fake.calls[1].startswith("up ")

    def test_that_is_torn_does_not_hide_a_living_run(self, alive: int, fake: FakePulumi) -> None:
        (self.lock(pid=alive).parent / "2.json").touch()
        with pytest.raises(LabError, match=f"in use by Pulumi with pid {alive}"):
            pulumi.up("dev", Progress())
        assert fake.calls == []

    @pytest.mark.parametrize("verb", [pulumi.up, pulumi.destroy])
    def test_of_a_living_run_is_an_error(self, verb: object, alive: int, fake: FakePulumi) -> None:
        self.lock(pid=alive)
        assert callable(verb)
        with pytest.raises(LabError, match=rf"in use by Pulumi with pid {alive}$") as it:
            verb("dev", Progress())
        assert "pulumi cancel" in it.value.mend
        assert fake.calls == []

    def test_of_a_run_that_ends_just_now_is_no_obstacle(self, fake: FakePulumi) -> None:
        lock = self.lock(pid=1, hostname="elsewhere")
        lock.unlink()
        lock.symlink_to("gone")  # listed, and not there when it is read
        fake.does('[ "$verb" = stack ] && echo "{}"; true')
        pulumi.up("dev", Progress())
        assert fake.calls[0].startswith("up ")

    def test_of_another_machine_is_an_error(self, fake: FakePulumi) -> None:
        self.lock(pid=1, hostname="elsewhere")
        with pytest.raises(LabError, match="pid 1 on elsewhere"):
            pulumi.up("dev", Progress())


def test_program_builds_where_pulumi_is_missing(fake: FakePulumi, tmp_path: Path) -> None:
    (tmp_path / "bin/pulumi").unlink()
    go = FakeGo(tmp_path / "bin")
    entries = pulumi.environment("dev", Progress())["PATH"].split(":")
    assert (Path(entries[1]) / "pulumi").exists()
    assert "github.com/pulumi/pulumi/pkg/v3/cmd/pulumi" in go.built
