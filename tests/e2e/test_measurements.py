"""The measurements run, and hold."""

from __future__ import annotations

import pytest

from bench import reboot

pytestmark = pytest.mark.e2e


def test_a_reboot_takes_no_longer_than_kubeadms(capsys: pytest.CaptureFixture[str]) -> None:
    code = reboot.main(["--rounds", "3"])  # a median that stands one boot that was disturbed
    with capsys.disabled():
        print(capsys.readouterr().out)
    assert code == 0
