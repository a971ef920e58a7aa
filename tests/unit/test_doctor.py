"""The doctor says what is there, what would happen and what is wrong, and leaves no trace."""

from __future__ import annotations

import gzip
import shutil
from collections import namedtuple
from pathlib import Path

import pytest

from lab import apt, doctor, toolchain
from lab.engine import EngineState
from lab.toolchain import gotoolchain
from tests.unit.sites import FakeGo, OfficialSites, unreachable

Usage = namedtuple("Usage", "total used free")

ROUTES = """Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT
eth0\t00000000\t0101A8C0\t0003\t0\t0\t0\t00000000\t0\t0\t0
eth0\t0001A8C0\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0
"""
KERNEL = "CONFIG_OVERLAY_FS=y\nCONFIG_BRIDGE_NETFILTER=m\nCONFIG_NF_TABLES=y\nCONFIG_VXLAN=m\n"


@pytest.fixture(autouse=True)
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A good machine of a new user, with a go and no engine. Returns what stands in for /proc."""
    proc = tmp_path / "proc"
    (proc / "net").mkdir(parents=True)
    (proc / "meminfo").write_text("MemTotal:       8000000 kB\n")
    (proc / "net/route").write_text(ROUTES)
    (proc / "config.gz").write_bytes(gzip.compress(KERNEL.encode()))
    monkeypatch.setattr(doctor, "PROC", proc)
    monkeypatch.setattr(doctor, "SYS_MODULE", tmp_path / "none")
    monkeypatch.setattr(doctor, "MODULES", tmp_path / "none")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: Usage(0, 0, 50 << 30))
    monkeypatch.setattr(doctor, "engine_state", lambda: EngineState(status="missing"))
    monkeypatch.setattr(doctor, "can_pull", lambda registry: False)
    monkeypatch.setattr(gotoolchain, "GO_DIRECTORY", str(tmp_path / "nowhere"))
    (tmp_path / "home").mkdir()
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    for name in ("XDG_CACHE_HOME", "XDG_DATA_HOME", "GOPROXY"):
        monkeypatch.delenv(name, raising=False)
    FakeGo(tmp_path / "bin")
    for name in ("gcc", "mmdebstrap"):
        (tmp_path / "bin" / name).symlink_to("/bin/true")
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    return proc


def wrong() -> list[str]:
    """Return the topics of what is wrong where only the module proxy can be reached."""
    with OfficialSites() as official:
        return [finding.topic for finding in doctor.examine(official.sites()) if finding.mend]


def test_good_machine_has_nothing_to_mend(capsys: pytest.CaptureFixture[str]) -> None:
    with OfficialSites() as official:
        assert doctor.report(official.sites()) == 0
    assert "nothing is in the way" in capsys.readouterr().out


def test_changes_nothing(tmp_path: Path) -> None:
    before = sorted(tmp_path.rglob("*"))
    list(doctor.examine(unreachable()))
    assert sorted(tmp_path.rglob("*")) == before


def test_says_where_each_tool_comes_from() -> None:
    with OfficialSites() as official:
        texts = {finding.topic: finding.text for finding in doctor.examine(official.sites())}
    assert "would be downloaded" in texts["kubelet"]
    assert "would be built" in texts["flannel"]
    assert "would be downloaded" in texts["plugin tls"]
    texts = {finding.topic: finding.text for finding in doctor.examine(unreachable())}
    assert "would be built" in texts["kubelet"]
    assert "would be built" in texts["plugin tls"]
    assert "a stand-in serves" in texts["plugin command"]


def test_something_wrong_ends_with_one(machine: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (machine / "meminfo").write_text("MemTotal:       2000000 kB\n")
    with OfficialSites() as official:
        assert doctor.report(official.sites()) == 1
    assert "✗ memory" in capsys.readouterr().out
    assert wrong() == ["memory"]


def test_full_disk_is_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda path: Usage(0, 0, 19 << 30))
    assert wrong() == ["disk"]


@pytest.mark.parametrize(("free", "topics"), [(6, []), (4, ["disk"])])
def test_disk_need_not_have_room_for_builds_that_are_done(
    free: int, topics: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda path: Usage(0, 0, free << 30))
    monkeypatch.setattr(toolchain, "source", lambda bundle, sites: "cached")
    assert wrong() == topics


@pytest.mark.parametrize("feature", doctor.KERNEL_FEATURES)
def test_missing_kernel_feature_is_wrong(feature: str, machine: Path) -> None:
    option = f"CONFIG_{doctor.KERNEL_FEATURES[feature]}="
    kernel = "\n".join(line for line in KERNEL.splitlines() if not line.startswith(option))
    (machine / "config.gz").write_bytes(gzip.compress(kernel.encode()))
    assert wrong() == [f"kernel {feature}"]


def test_silent_kernel_is_not_wrong(machine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (machine / "config.gz").unlink()
    monkeypatch.setattr(doctor, "_kernel_config", lambda release: "")
    assert wrong() == []


@pytest.mark.parametrize(
    "line",
    [
        "eth1\t00001EAC\t00000000\t0001\t0\t0\t0\t0000FFFF\t0\t0\t0",  # 172.30.0.0/16
        "wg0\t000010AC\t00000000\t0001\t0\t0\t0\t0000F0FF\t0\t0\t0",  # 172.16.0.0/12
        "eth1\t00051EAC\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0",  # 172.30.5.0/24
    ],
)
def test_labs_addresses_in_use_are_wrong(line: str, machine: Path) -> None:
    (machine / "net/route").write_text(f"{ROUTES}{line}\n")
    assert wrong() == ["addresses"]


def test_labs_own_network_is_not_wrong(machine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    line = "br-0123456789ab\t00001EAC\t00000000\t0001\t0\t0\t0\t0000FFFF\t0\t0\t0"
    (machine / "net/route").write_text(f"{ROUTES}{line}\n")
    monkeypatch.setattr(doctor, "engine_state", lambda: EngineState(status="running", version="20"))
    monkeypatch.setattr(doctor, "docker", lambda *arguments: "0123456789abcdef")
    assert wrong() == []


def test_unusable_engine_is_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    state = EngineState(status="unusable", detail="does not answer", mend="start it")
    monkeypatch.setattr(doctor, "engine_state", lambda: state)
    assert wrong() == ["container engine"]


def test_images_without_docker_hub_or_mmdebstrap_are_wrong(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "bin/mmdebstrap").unlink()
    monkeypatch.setattr(apt, "can_install", lambda: False)
    assert wrong() == ["mmdebstrap"]
    monkeypatch.setattr(apt, "can_install", lambda: True)
    assert wrong() == []
    monkeypatch.setattr(apt, "can_install", lambda: False)
    monkeypatch.setattr(doctor, "can_pull", lambda registry: True)
    assert wrong() == []


def test_build_without_go_or_a_module_proxy_is_wrong(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "bin/go").unlink()
    assert wrong() == ["go"]
    monkeypatch.setenv("GOPROXY", "https://modules.example")
    assert wrong() == []
    assert [finding.topic for finding in doctor.examine(unreachable()) if finding.mend] == ["go"]
