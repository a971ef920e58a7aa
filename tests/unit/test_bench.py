"""The arithmetic of the measurements: what is compared, what is printed, and when it fails."""

from __future__ import annotations

import subprocess
import sys

import pytest

from bench import doubles, reboot, scale
from bench.reboot import LIMIT, Contender, race, ratio, table
from bench.scale import Cost, Measured, growths
from lab import lifecycle, pins
from lab.progress import Progress


def test_the_ratio_is_that_of_the_medians() -> None:
    assert ratio([4.0, 30.0, 5.0], [4.0, 2.0, 5.0]) == 1.25
    assert ratio([3.0, 5.0], [2.0, 2.0]) == 2.0


def test_the_table_has_every_boot_and_the_medians() -> None:
    rows = [line.split() for line in table({"ours": [4.0, 30.0, 5.004], "theirs": [4, 2, 5]}).splitlines()]
    assert rows == [
        ["boot", "ours", "theirs"],
        ["1", "4.00", "4.00"],
        ["2", "30.00", "2.00"],
        ["3", "5.00", "5.00"],
        ["median", "5.00", "4.00"],
    ]


def test_boots_that_do_not_pair_are_an_error() -> None:
    with pytest.raises(ValueError, match="shorter"):
        table({"ours": [1.0, 2.0], "theirs": [1.0]})


def test_they_take_turns_and_the_other_is_off(monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[str] = []

    def note(verb: str, result: float = 0) -> object:
        def noted(self: Contender) -> float:
            done.append(f"{verb} {self.name}")
            return result

        return noted

    monkeypatch.setattr(Contender, "boot", note("boot", 5))
    monkeypatch.setattr(Contender, "settle", note("settle"))
    monkeypatch.setattr(Contender, "shut_down", note("off"))
    both = [Contender(name=name, container=name, address="", settled="") for name in ("a", "b")]
    assert race(both, 2, Progress()) == {"a": [5, 5], "b": [5, 5]}
    settled = ["boot a", "settle a", "off a", "boot b", "settle b", "off b"]
    assert done == ["off a", "off b", *settled, "boot a", "off a", "boot b", "off b"]


@pytest.mark.parametrize(("ours", "code"), [(LIMIT * 4, 0), (LIMIT * 4 + 0.01, 1)])
def test_beyond_the_limit_it_fails(
    ours: float, code: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    both = tuple(Contender(name=name, container="", address="", settled="") for name in ("ours", "theirs"))
    monkeypatch.setattr(lifecycle, "machine", lambda progress: progress.step("machine"))
    monkeypatch.setattr(reboot, "remove_hosts", lambda cluster: None)
    monkeypatch.setattr(reboot, "Checkout", lambda directory: None)
    monkeypatch.setattr(reboot, "make", lambda checkout, progress: both)
    monkeypatch.setattr(
        reboot,
        "race",
        lambda contenders, rounds, progress: {"ours": [ours] * rounds, "theirs": [4.0] * rounds},
    )
    assert reboot.main(["--rounds", "3"]) == code
    assert "kubepivot / kubeadm: 1.30 (limit 1.3)" in capsys.readouterr().out


def test_no_boot_is_no_measurement() -> None:
    with pytest.raises(SystemExit):
        reboot.main(["--rounds", "0"])


def measured(cpu: float) -> Measured:
    cost = Cost(cpu=cpu, memory=cpu * 100)
    return Measured(resources=100, preview=cost, up=cost)


def test_growth_is_scaled_to_four_times_the_hosts() -> None:
    found = growths({200: measured(40), 50: measured(10), 10: measured(2)})
    assert found == pytest.approx(
        {
            "preview, 10 to 50 hosts": 4,
            "unchanged up, 10 to 50 hosts": 4,
            "preview, 50 to 200 hosts": 4,
            "unchanged up, 50 to 200 hosts": 4,
        }
    )
    assert growths({10: measured(1), 20: measured(4)})["preview, 10 to 20 hosts"] == pytest.approx(16)


def test_the_floor_stands_beside_each_cost() -> None:
    _, *rows = scale.table({50: (measured(30), measured(20))}).splitlines()
    costs = ["30.0", "20.0", "1.50", "3000", "2000", "1.50"]
    assert [row.split() for row in rows] == [
        ["50", "100", "preview", *costs],
        ["50", "100", "unchanged", "up", *costs],
    ]


@pytest.mark.parametrize(("cpu", "code"), [(4.9, 0), (5.1, 1)])
def test_what_grows_too_fast_fails(
    cpu: float, code: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    both = {10: measured(1), 40: measured(cpu)}
    monkeypatch.setattr(scale, "make", lambda directory: ("ours", "floor"))
    monkeypatch.setattr(scale, "measure_hosts", lambda ours, floor, hosts: (both[hosts], measured(1)))
    assert scale.main(["--hosts", "10", "40"]) == code
    assert f"preview, 10 to 40 hosts: {cpu} times as much for 4 times the hosts (limit 5)" in (
        capsys.readouterr().out
    )


@pytest.mark.parametrize("hosts", [["10"], ["10", "10"], ["0", "10"], ["10", "251"]])
def test_growth_needs_two_sizes(hosts: list[str]) -> None:
    with pytest.raises(SystemExit):
        scale.main(["--hosts", *hosts])


def test_memory_is_that_of_all_processes_of_a_session() -> None:
    code = "import subprocess; x = b'x' * 2**25; print(flush=True); subprocess.run(['cat'])"
    with subprocess.Popen(
        [sys.executable, "-c", code],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        start_new_session=True,
    ) as process:
        assert process.stdin is not None and process.stdout is not None
        process.stdout.readline()
        assert scale.resident(process.pid) > 2**25
        process.stdin.close()
    assert scale.resident(process.pid) == 0


def test_every_double_is_a_plugin_of_the_program() -> None:
    assert doubles.DOUBLES.keys() <= pins.PLUGINS.keys()
