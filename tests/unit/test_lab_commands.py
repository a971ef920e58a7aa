"""`python -m lab`: errors are for people, `env` is for a shell, and there is nothing to take down twice."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from lab import __main__, lifecycle, pins, pulumi
from lab.engine import EngineState
from lab.errors import LabError
from lab.progress import Progress

Run = Callable[..., int]

OLDEST = next(iter(pins.RELEASES.values()))


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run a verb in a checkout with one stack, on a machine of a new user without an engine."""
    (tmp_path / "Pulumi.yaml").write_text("name: kubepivot\n")
    (tmp_path / "Pulumi.dev.yaml").write_text("config: {kubepivot:platform: lab}\n")
    (tmp_path / "Pulumi.metal.yaml").write_text("config: {kubepivot:platform: baremetal}\n")
    monkeypatch.setattr(pins, "CHECKOUT", tmp_path)
    monkeypatch.setattr(lifecycle, "engine_state", lambda: EngineState(status="missing"))
    for name in ("XDG_CACHE_HOME", "XDG_DATA_HOME"):
        monkeypatch.setenv(name, str(tmp_path / name))

    def main(*arguments: str) -> int:
        monkeypatch.setattr(sys, "argv", ["lab", *arguments])
        return __main__.main()

    return main


@pytest.fixture
def prepared(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What was made ready and done, in order."""
    done: list[str] = []

    def step(name: str) -> lifecycle.Step:
        return name, lambda progress: done.append(name)

    monkeypatch.setattr(lifecycle, "TOOLS", (step("tools"),))
    monkeypatch.setattr(lifecycle, "ENGINE", step("engine"))
    monkeypatch.setattr(
        lifecycle,
        "machine_steps",
        lambda release: (step("machine" if release == pins.NEWEST else f"machine of {release.kubernetes}"),),
    )
    monkeypatch.setattr(pulumi, "up", lambda stack, progress: done.append("pulumi up"))
    monkeypatch.setattr(pulumi, "destroy", lambda stack, progress: done.append("pulumi destroy"))
    monkeypatch.setattr(pulumi, "exists", lambda stack: True)
    return done


def test_error_says_what_is_wrong_and_what_mends_it(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("up", "--stack", "prod") == 1
    error = capsys.readouterr().err
    assert "error: the stack prod has no file Pulumi.prod.yaml" in error
    assert "mend:  write it" in error


@pytest.mark.parametrize(
    ("failure", "said"),
    [
        (
            OSError(errno.ENOSPC, "No space left on device", "/x"),
            "error: [Errno 28] No space left on device: '/x'\nmend:  free disk space, then run again\n",
        ),
        (
            PermissionError(errno.EACCES, "Permission denied", "/x"),
            "'/x'\nmend:  mend that, then run again\n",
        ),
        (
            subprocess.CalledProcessError(3, ["sh", "trim"], stderr="no such file"),
            "returned non-zero exit status 3. no such file\nmend:  mend that",
        ),
        (subprocess.TimeoutExpired(["gcc"], 60), "timed out after 60 seconds\nmend:  mend that"),
    ],
)
def test_failure_of_the_machine_is_an_error_too(
    failure: Exception,
    said: str,
    run: Run,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fails(stack: str) -> None:
        raise failure

    monkeypatch.setattr(lifecycle, "up", fails)
    assert run("up") == 1
    assert said in capsys.readouterr().err


def test_interrupt_says_that_it_continues(
    run: Run, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(stack: str) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(lifecycle, "up", interrupted)
    assert run("up") == 130
    assert "run again, it continues" in capsys.readouterr().err


def test_an_end_from_outside_is_an_interrupt(tmp_path: Path) -> None:
    for name in ("pulumi", "pulumi-language-python", "pulumi-language-python-exec"):
        (tmp_path / name).write_text(
            f"#!/bin/sh\necho $$ > {tmp_path}/pid.new\nmv {tmp_path}/pid.new {tmp_path}/pid\nexec sleep 60\n"
        )
        (tmp_path / name).chmod(0o755)
    environment = {"PATH": f"{tmp_path}:/usr/bin:/bin", "HOME": str(tmp_path)}
    command = [sys.executable, "-m", "lab", "toolchain"]
    with subprocess.Popen(
        command, cwd=pins.CHECKOUT, env=environment, stderr=subprocess.PIPE, text=True
    ) as process:
        deadline = time.monotonic() + 20
        while not (tmp_path / "pid").exists():
            assert time.monotonic() < deadline and process.poll() is None
            time.sleep(0.01)
        process.terminate()
        _, said = process.communicate(timeout=20)
    assert process.returncode == 130
    assert "run again, it continues" in said
    assert not Path(f"/proc/{(tmp_path / 'pid').read_text().strip()}/exe").exists()


def test_up_and_down_of_a_lab_see_to_the_machine(run: Run, prepared: list[str]) -> None:
    assert run("up") == 0
    assert prepared == ["tools", "machine", "pulumi up"]
    prepared.clear()
    assert run("down") == 0
    assert prepared == ["tools", "engine", "pulumi destroy"]


def test_up_makes_the_release_that_the_stack_names_and_no_other(
    run: Run, prepared: list[str], tmp_path: Path
) -> None:
    file = tmp_path / "Pulumi.dev.yaml"
    file.write_text(
        f"config: {{kubepivot:platform: lab, kubepivot:kubernetesVersion: {OLDEST.kubernetes}}}\n"
    )
    assert run("up") == 0
    assert prepared == ["tools", f"machine of {OLDEST.kubernetes}", "pulumi up"]


def test_a_release_that_the_lab_has_not_is_an_error_before_anything_is_made(
    run: Run, prepared: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = "kubepivot:platform: {}, kubepivot:kubernetesVersion: 1.1.1"
    (tmp_path / "Pulumi.dev.yaml").write_text(f"config: {{{settings.format('lab')}}}\n")
    assert run("up") == run("mirror", "--release", "1.1.1") == 1
    assert prepared == []
    assert capsys.readouterr().err.count("error: the lab has no Kubernetes 1.1.1\nmend:  name one") == 2
    (tmp_path / "Pulumi.metal.yaml").write_text(f"config: {{{settings.format('baremetal')}}}\n")
    assert run("up", "--stack", "metal") == 0
    assert prepared == ["tools", "pulumi up"], "the program says what it supports"


def test_mirror_is_of_the_newest_release_or_the_one_that_is_named(run: Run, prepared: list[str]) -> None:
    assert run("mirror") == run("mirror", "--release", OLDEST.kubernetes) == 0
    assert prepared == ["machine", f"machine of {OLDEST.kubernetes}"]


def test_one_more_release_is_its_files_and_its_images(monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[str] = []
    monkeypatch.setattr(
        lifecycle,
        "ensure_tree",
        lambda progress, artifacts: done.extend(artifact.path.split("/")[-1] for artifact in artifacts),
    )
    monkeypatch.setattr(
        lifecycle, "ensure_images", lambda progress, images: done.extend(image.name for image in images)
    )
    lifecycle.prepare_release(OLDEST.kubernetes, Progress())
    assert done[:2] == ["kubelet", "kubectl"]
    assert f"registry.k8s.io/kube-apiserver:v{OLDEST.kubernetes}" in done
    assert not any(pins.NEWEST.kubernetes in name for name in done)


def test_the_s3_client_is_made_ready_for_a_stack_that_copies_its_snapshots(
    run: Run, prepared: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lifecycle, "S3_CLIENT", ("client", lambda progress: prepared.append("client")))
    monkeypatch.setattr(pulumi, "copies_snapshots", lambda stack: True)
    assert run("up") == 0
    assert prepared == ["tools", "machine", "client", "pulumi up"]


def test_up_and_down_of_bare_metal_leave_the_machine_alone(
    run: Run, prepared: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lifecycle, "engine_state", lambda: EngineState(status="running"))
    monkeypatch.delattr(lifecycle, "docker")
    assert run("up", "--stack", "metal") == 0
    assert prepared == ["tools", "pulumi up"]
    prepared.clear()
    assert run("down", "--stack", "metal") == 0
    assert prepared == ["tools", "pulumi destroy"]


def test_environment_makes_tools_and_plugins_ready(
    run: Run,
    prepared: list[str],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(pulumi, "environment", lambda stack: {"PULUMI_STACK": stack})
    assert run("env") == 0
    assert prepared == ["tools"]
    assert capsys.readouterr().out == "export PULUMI_STACK=dev\n"


def test_environment_is_for_a_shell(
    run: Run, prepared: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    value = 'it\'s a "path" $HOME `x`'
    monkeypatch.setattr(
        pulumi, "environment", lambda stack: {"PATH": os.environ["PATH"], "KUBECONFIG": value}
    )
    monkeypatch.setenv("PULUMI_CONFIG_PASSPHRASE", "another")
    assert run("env") == 0
    script = capsys.readouterr().out
    assert all(line.startswith(("export ", "unset ")) for line in script.splitlines())
    command = f'{script}\nprintf %s "$KUBECONFIG"; [ -z "${{PULUMI_CONFIG_PASSPHRASE+set}}" ]'
    done = subprocess.run(["sh", "-c", command], capture_output=True, text=True, timeout=10)
    assert (done.stdout, done.returncode) == (value, 0)


def test_down_with_nothing_there_does_nothing(run: Run, tmp_path: Path) -> None:
    before = sorted(tmp_path.rglob("*"))
    assert run("down") == 0
    assert sorted(tmp_path.rglob("*")) == before


def test_down_removes_hosts_that_no_state_knows(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []

    def docker(*arguments: str) -> str:
        calls.append(" ".join(arguments))
        return "c1\nc2" if "label=kubepivot.cluster=dev" in arguments else ""

    monkeypatch.setattr(lifecycle, "engine_state", lambda: EngineState(status="running"))
    monkeypatch.setattr(lifecycle, "docker", docker)
    monkeypatch.setattr(lifecycle, "remove_mirror", lambda: calls.append("remove mirror"))
    monkeypatch.setattr(lifecycle, "stop_engine", lambda: calls.append("stop engine"))
    assert run("down") == 0
    assert calls[1:3] == ["container rm --force --volumes c1 c2", "remove mirror"]
    assert calls[-1] == "stop engine"


def test_down_leaves_what_another_up_has_made_ready(
    run: Run, prepared: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lifecycle, "engine_state", lambda: EngineState(status="running"))
    monkeypatch.setattr(lifecycle, "docker", lambda *arguments: "")
    monkeypatch.setattr(lifecycle, "remove_mirror", lambda: prepared.append("remove mirror"))
    monkeypatch.setattr(lifecycle, "stop_engine", lambda: prepared.append("stop engine"))

    def another_goes_down(stack: str, progress: Progress) -> None:
        assert run("down") == 0

    monkeypatch.setattr(pulumi, "up", another_goes_down)
    assert run("up") == 0
    assert "remove mirror" not in prepared and "stop engine" not in prepared
    assert "another `make up` is under way" in capsys.readouterr().err
    assert run("down") == 0
    assert prepared[-2:] == ["remove mirror", "stop engine"]


def test_down_leaves_an_engine_that_has_other_work(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lifecycle, "engine_state", lambda: EngineState(status="running"))
    monkeypatch.setattr(lifecycle, "docker", lambda *arguments: "" if "--all" in arguments else "c9")
    monkeypatch.setattr(lifecycle, "remove_mirror", lambda: None)

    def stop() -> None:
        raise LabError("stopped", "")

    monkeypatch.setattr(lifecycle, "stop_engine", stop)
    assert run("down") == 0
