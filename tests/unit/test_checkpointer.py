"""The pod-checkpointer: what it decides, and that a cluster in any state does not mislead it."""

from __future__ import annotations

import itertools
import json
import os
import tempfile
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from components.programs.checkpointer.checkpointer import (
    LED_SECONDS,
    SETTLED_SECONDS,
    Checkpointer,
    Unavailable,
)
from components.programs.checkpointer.pods import APISERVER, SCHEDULER, SELF, Owner, is_ready
from components.programs.checkpointer.state import (
    DEAD_SECONDS,
    GONE_SECONDS,
    UNLED_SECONDS,
    Action,
    Situation,
    Timers,
    decide,
)
from components.programs.checkpointer.store import Store, is_valid
from tests.unit.checkpoints import OWNERS, SECRET, Object, directory_of, pod, status

# -- decisions -----------------------------------------------------------------------------------------------


def test_decisions_exhaustively() -> None:
    """Every situation of three owners, with and without an API."""
    situations = [
        Situation(armed=armed, settled=settled, gone_for=gone_for, unled_for=unled_for)
        for armed in (False, True)
        for unled_for in (UNLED_SECONDS - 1, UNLED_SECONDS)
        for settled, gone_for in ((False, 0.0), (True, 0.0), (False, GONE_SECONDS - 1), (False, GONE_SECONDS))
    ]
    for dead_for in (0.0, DEAD_SECONDS - 1, DEAD_SECONDS):
        for found in itertools.product(situations, repeat=len(OWNERS)):
            owners = dict(zip(OWNERS, found, strict=True))
            actions = decide(owners, dead_for)
            others_armed = any(owners[owner].armed for owner in OWNERS if owner != SELF)
            for owner, situation in owners.items():
                action = actions.get(owner)
                gone, dead = situation.gone_for >= GONE_SECONDS, dead_for >= DEAD_SECONDS
                last = owner == SELF and others_armed
                unled = situation.unled_for >= UNLED_SECONDS
                assert (action == Action.ARM) == ((dead or unled) and not situation.armed)
                stays = situation.armed and unled
                assert (action == Action.DISARM) == (
                    situation.armed and situation.settled and not last and not stays
                )
                keeps = last or stays or (owner == APISERVER and situation.armed)
                assert (action == Action.FORGET) == (
                    gone and not keeps and not situation.settled and action != Action.ARM
                )


def test_a_timer_starts_anew_after_a_break() -> None:
    timers = Timers()
    timers.hold({"a"}, 10)
    timers.hold({"a", "b"}, 12)
    assert (timers.age("a", 15), timers.age("b", 15), timers.age("c", 15)) == (5, 3, 0)
    timers.hold({"b"}, 16)
    timers.hold({"a", "b"}, 18)
    assert (timers.age("a", 20), timers.age("b", 20)) == (2, 8)


# -- a model: events in any order ----------------------------------------------------------------------------


class World:
    """A controller and its cluster, as far as the program can tell."""

    def __init__(self, directory: Path) -> None:
        self.now = 0.0
        self.listening = True
        self.telling = True
        self.node = True
        self.leading = True
        self.leader = "first"
        self.led_since = 0.0
        self.renewed = ""
        self.elsewhere: set[Owner] = set()
        self.pods: dict[Owner, Object] = {}
        self.containers = itertools.count()
        self.store = Store(directory)
        self.store.manifests.mkdir(parents=True)
        self.directory = directory
        self.start()
        for owner in OWNERS:
            self.create(owner)

    def start(self) -> None:
        self.program = Checkpointer("controller-1", self, self.store, lambda: self.now)

    def answers(self) -> bool:
        return self.listening

    def get(self, path: str) -> Object | None:
        if not (self.listening and self.telling):
            raise Unavailable(path)
        if path == "/api/v1/namespaces/kube-system/pods?fieldSelector=spec.nodeName%3Dcontroller-1":
            return {"items": json.loads(json.dumps(list(self.pods.values())))}
        if path == "/api/v1/nodes/controller-1":
            return {} if self.node else None
        if path.startswith("/apis/coordination.k8s.io/v1/namespaces/kube-system/leases/"):
            if self.leading:
                self.renewed = str(self.now)
            return {"metadata": {"resourceVersion": self.renewed}, "spec": {"holderIdentity": self.leader}}
        if path.startswith("/apis/apps/v1/namespaces/kube-system/deployments/"):
            owner = Owner("kube-system", "Deployment", path.rpartition("/")[2])
            available = {"availableReplicas": 1} if owner in {*self.elsewhere, *self.pods} else {}
            return {"status": available}
        assert path == "/api/v1/namespaces/kube-system/secrets/main-1"
        return SECRET

    def create(self, owner: Owner) -> None:
        self.pods[owner] = pod(owner, uid=str(next(self.containers)))
        self.run(owner)

    def lead(self, leader: str) -> None:
        """That one leads from now on."""
        self.leading, self.leader, self.led_since = True, leader, self.now

    def remove(self, owner: Owner) -> None:
        self.pods.pop(owner, None)

    def run(self, owner: Owner, *, ready: bool = True) -> None:
        if owner in self.pods:
            # A clock that the marks of boots are set by as well.
            started = datetime.now(UTC) + timedelta(seconds=2)
            self.pods[owner]["status"] = status(
                ready=ready, started=started, container=str(next(self.containers))
            )

    def reboot(self) -> None:
        """Statuses stay as they were, containers are gone, what is saved is armed."""
        old = datetime.now(UTC) - timedelta(days=1)
        for found in self.pods.values():
            for container in found["status"]["containerStatuses"]:
                container["state"] = {"running": {"startedAt": old.strftime("%Y-%m-%dT%H:%M:%SZ")}}
        (self.directory / "checkpoints.booted").touch()
        for owner in self.store.owners():
            self.store.arm(owner)
        self.start()

    def damage(self, owner: Owner) -> None:
        link = self.store.checkpoints / str(owner) / "current"
        if link.exists():
            (link / "SHA256SUMS").write_text("")

    def armed(self) -> set[Owner]:
        return {owner for owner in OWNERS if self.store.is_armed(owner)}

    def let(self, seconds: float) -> None:
        """Time goes by, with a look every two seconds; what must hold then is checked at each."""
        end = self.now + seconds
        while self.now < end:
            self.now += 2
            before = self.armed()
            led = self.leading and self.now - self.led_since > LED_SECONDS + 2
            expected = not self.listening or not led
            self.program.tick()
            after = self.armed()
            for owner in before - after:
                assert self.listening and self.telling, "nothing is known, so nothing is taken away"
                found = self.pods.get(owner)
                assert found is None or is_ready(found, self.store.booted())
                assert found is not None or owner != APISERVER, "it may be the only one that answers"
                assert found is not None or owner != SCHEDULER or owner in self.elsewhere, "so may it"
                assert found is not None or self.node, "nothing is known of a node that is gone"
                assert owner != SELF or not before - {SELF}, "itself last"
            assert after <= before or expected, "nothing is armed beside what lives"
            for path in self.store.manifests.iterdir():
                for volume in json.loads(path.read_text())["spec"]["volumes"]:
                    if volume["name"] == "secrets":
                        assert (Path(volume["hostPath"]["path"]) / "a.key").read_bytes() == b"a.key"


EVENTS: dict[str, Callable[[World, Owner], None]] = {
    "nothing listens": lambda world, owner: setattr(world, "listening", False),
    "something listens": lambda world, owner: setattr(world, "listening", True),
    "nobody leads": lambda world, owner: setattr(world, "leading", False),
    "somebody leads": lambda world, owner: world.lead(world.leader),
    "another one leads": lambda world, owner: world.lead(str(next(world.containers))),
    "the node is gone": lambda world, owner: setattr(world, "node", False),
    "the node is back": lambda world, owner: setattr(world, "node", True),
    "others serve": lambda world, owner: world.elsewhere.add(owner),
    "no others serve": lambda world, owner: world.elsewhere.discard(owner),
    "the API is sick": lambda world, owner: setattr(world, "telling", False),
    "the API is well": lambda world, owner: setattr(world, "telling", True),
    "a pod is made": lambda world, owner: world.create(owner),
    "a pod is gone": lambda world, owner: world.remove(owner),
    "a container starts anew": lambda world, owner: world.run(owner),
    "a container is not ready": lambda world, owner: world.run(owner, ready=False),
    "the host reboots": lambda world, owner: world.reboot(),
    "the program starts anew": lambda world, owner: world.start(),
    "a checkpoint is damaged": lambda world, owner: world.damage(owner),
}


@pytest.mark.sweep
@settings(max_examples=20, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.sampled_from(sorted(EVENTS)), st.sampled_from(OWNERS), st.sampled_from([0, 2, 16, 40, 310])
        ),
        max_size=10,
    )
)
def test_whatever_happens_a_dead_api_is_armed_and_a_healthy_cluster_stands_alone(
    events: list[tuple[str, Owner, int]],
) -> None:
    _let_happen(events)


def test_after_some_of_it_a_dead_api_is_armed_and_a_healthy_cluster_stands_alone() -> None:
    _let_happen(
        [
            ("a container is not ready", SCHEDULER, 16),
            ("a checkpoint is damaged", APISERVER, 40),
            ("the host reboots", APISERVER, 2),
            ("a pod is gone", SCHEDULER, 310),
            ("the program starts anew", APISERVER, 0),
        ]
    )


def _let_happen(events: list[tuple[str, Owner, int]]) -> None:
    with tempfile.TemporaryDirectory() as directory:
        world = World(Path(directory))
        world.let(40)
        for event, owner, seconds in events:
            EVENTS[event](world, owner)
            world.let(seconds)
        saved = [owner for owner in OWNERS if world.store.generation(owner)]
        world.listening = False
        world.let(DEAD_SECONDS + 4)
        assert set(saved) <= world.armed()
        world.listening = world.telling = True
        world.lead(world.leader)
        for owner in OWNERS:
            world.create(owner)
        world.let(SETTLED_SECONDS + 10)
        assert world.armed() == set()
        assert all(world.store.generation(owner) for owner in OWNERS)


# -- the program ---------------------------------------------------------------------------------------------


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path / "kubernetes")


def test_the_first_checkpoint_is_taken_at_once_and_the_next_when_it_has_settled(world: World) -> None:
    world.let(2)
    first = world.store.generation(APISERVER)
    assert first is not None
    before = first.resolve()
    world.create(APISERVER)
    world.pods[APISERVER]["spec"]["containers"][0]["command"] = ["main", "--flag=2"]
    world.let(SETTLED_SECONDS - 2)
    assert first.resolve() == before
    world.let(4)
    assert first.resolve() != before
    assert (directory_of(world.store) / "previous").resolve() == before


def test_a_pod_that_crashes_within_that_time_is_never_saved(world: World) -> None:
    world.let(2)
    link = directory_of(world.store) / "current"
    before = link.resolve()
    world.create(APISERVER)
    world.pods[APISERVER]["spec"]["containers"][0]["command"] = ["main", "--broken"]
    for _ in range(5):
        world.let(SETTLED_SECONDS - 2)
        world.run(APISERVER)
    assert link.resolve() == before


def test_a_refused_pod_is_named_once(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    world.pods[SCHEDULER]["spec"]["volumes"].append({"name": "token", "projected": {}})
    world.let(100)
    said = [line for line in capsys.readouterr().out.splitlines() if "kube-scheduler" in line]
    reason = "a static pod can have no volume of kind projected"
    assert said == [f"kube-system-Deployment-kube-scheduler is not saved: {reason}"]
    assert world.store.generation(SCHEDULER) is None and world.store.generation(APISERVER) is not None


def test_a_full_disk_keeps_what_is_there(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.let(2)
    before = world.store.generation(APISERVER)
    world.create(APISERVER)
    world.pods[APISERVER]["spec"]["containers"][0]["command"] = ["main", "--flag=2"]

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as disk:
        disk.setattr(os, "fsync", full)
        world.let(100)
    assert world.store.generation(APISERVER) == before
    assert before is not None and is_valid(before, APISERVER.manifest)
    world.let(4)
    assert "--flag=2" in (before / APISERVER.manifest).read_text()


def test_a_directory_that_somebody_removed_is_made_again(world: World) -> None:
    world.let(2)
    world.store.checkpoints.rename(world.directory / "away")
    world.let(4)
    assert all(world.store.generation(owner) for owner in OWNERS)


@pytest.mark.parametrize("armed", [False, True])
def test_who_serves_elsewhere_is_forgotten_after_a_while(world: World, armed: bool) -> None:
    world.let(40)
    del world.pods[SCHEDULER]
    world.elsewhere.add(SCHEDULER)
    if armed:
        world.store.arm(SCHEDULER)
    world.let(GONE_SECONDS - 4)
    assert world.store.generation(SCHEDULER) is not None
    world.let(8)
    assert not directory_of(world.store, SCHEDULER).exists()
    assert world.store.generation(APISERVER) is not None


def test_who_serves_nowhere_is_armed_and_stays_until_a_real_one_has_settled(world: World) -> None:
    """Its pod was deleted, and nobody is there to make or place another one."""
    world.let(40)
    del world.pods[SCHEDULER]
    world.leading = False
    world.let(UNLED_SECONDS - 4)
    assert world.armed() == set()
    world.let(8)
    assert world.armed() == {SCHEDULER}
    world.leading = True  # by the copy
    world.let(2 * GONE_SECONDS)
    assert world.armed() == {SCHEDULER}
    world.create(SCHEDULER)
    world.let(SETTLED_SECONDS + 4)
    assert world.armed() == set() and world.store.generation(SCHEDULER) is not None


def test_a_lease_that_changes_hands_arms_nothing(world: World) -> None:
    world.let(40)
    for _ in range(3):
        world.leading = False
        world.let(UNLED_SECONDS - 6)
        world.leading = True
        world.let(4)
    assert world.armed() == set()


def test_another_one_that_leads_within_a_normal_time_arms_nothing(world: World) -> None:
    """The lease of the one before lasts 15 s, and a standby looks for it every 2 to 4 s."""
    world.let(40)
    world.leading = False
    world.let(20)
    world.lead("second")
    world.let(2 * UNLED_SECONDS)
    assert world.armed() == set()


def test_another_one_that_leads_late_is_armed_beside_once(
    world: World, capsys: pytest.CaptureFixture[str]
) -> None:
    """One that leads does not count at once, so that a copy comes, which is no reason to count it anew."""
    world.let(40)
    world.leading = False
    world.let(UNLED_SECONDS - 5)
    world.lead("second")
    world.let(2 * UNLED_SECONDS)
    assert world.armed() == set()
    said = [line for line in capsys.readouterr().out.splitlines() if "kube-scheduler" in line]
    assert [line.rpartition(" ")[2] for line in said if "saved" not in line] == ["armed", "disarmed"]


def broken_once_it_leads(world: World, *, rounds: int) -> None:
    """A new one is Ready until the lease of the one before has run out. Then it leads, and ends."""
    for _ in range(rounds):
        world.run(SCHEDULER)
        world.leading = False
        world.let(16)
        world.lead(str(next(world.containers)))
        world.let(6)
        world.run(SCHEDULER, ready=False)


def test_the_one_before_is_armed_when_a_new_one_ends_as_soon_as_it_leads(world: World) -> None:
    """It renews its lease, each time as another one. The copy is what leads, and stays what is saved."""
    world.let(40)
    saved = (directory_of(world.store, SCHEDULER) / "current").resolve()
    world.create(SCHEDULER)
    world.pods[SCHEDULER]["spec"]["containers"][0]["command"] = ["main", "--broken"]
    broken_once_it_leads(world, rounds=3)
    assert world.armed() == {SCHEDULER}
    world.run(SCHEDULER)
    world.lead("the copy")
    world.let(SETTLED_SECONDS + 4)
    assert world.armed() == set()  # as a standby the broken one has settled
    broken_once_it_leads(world, rounds=3)
    assert world.armed() == {SCHEDULER}
    assert (directory_of(world.store, SCHEDULER) / "current").resolve() == saved


def test_a_leader_is_saved_when_it_has_led(world: World) -> None:
    world.let(40)
    saved = (directory_of(world.store, SCHEDULER) / "current").resolve()
    world.create(SCHEDULER)
    world.pods[SCHEDULER]["spec"]["containers"][0]["command"] = ["main", "--flag=2"]
    world.let(SETTLED_SECONDS - 10)
    world.lead("second")
    world.let(SETTLED_SECONDS)
    assert (directory_of(world.store, SCHEDULER) / "current").resolve() == saved
    world.let(4)
    assert (directory_of(world.store, SCHEDULER) / "current").resolve() != saved


def test_nothing_is_forgotten_while_the_node_is_gone(world: World) -> None:
    """Whoever deletes a Node has its pods deleted. With the Node they come again."""
    world.let(40)
    world.node = False
    world.pods.clear()
    world.elsewhere.add(SCHEDULER)
    world.let(2 * GONE_SECONDS)
    assert all(world.store.generation(owner) for owner in OWNERS)
    world.node = True
    world.let(GONE_SECONDS - 4)
    assert all(world.store.generation(owner) for owner in OWNERS)


def test_what_the_api_may_not_tell_is_no_reason_to_arm_or_to_forget(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its role came with a later version than its program, and is applied beside it."""
    world.let(40)
    del world.pods[SCHEDULER]
    get = world.get

    def forbidden(path: str) -> Object | None:
        if path.startswith("/apis/"):
            raise Unavailable(f"{path}: 403")
        return get(path)

    monkeypatch.setattr(world, "get", forbidden)
    world.let(2 * GONE_SECONDS)
    assert world.armed() == set() and world.store.generation(SCHEDULER) is not None
