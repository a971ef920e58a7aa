"""The arithmetic of the measurements: what is compared, what is printed, and when it fails."""

from __future__ import annotations

import pytest

from bench import reboot
from bench.reboot import LIMIT, Contender, race, ratio, table
from lab import lifecycle
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
