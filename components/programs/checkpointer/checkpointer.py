"""Keeps the control plane's pods on disk, so that a kubelet without an API can start them.

A kubelet learns of pods from the API and forgets them when its host reboots: on a single controller nothing
would start the API again. This program runs on every controller. It saves the last pod of each workload of
the control plane that has been Ready for a while as a static pod, with the Secrets and ConfigMaps that it
mounts. At boot a unit of the host copies those manifests to the kubelet's static pods (`arm-checkpoints`);
when the real pods run again this program takes them away. It also puts them there itself when nothing answers
at the API's port, and controller manager and scheduler when nobody leads. The copies share ports, and leases,
with the real pods, so that running beside them is harmless.

Standard library only. It logs in as the kubelet, whom the Node authorizer lets read its node, the pods there
and what they mount, and a role of its own the leases and Deployments of controller manager and scheduler.

    python3 -m components.programs.checkpointer.checkpointer NODE PORT
"""

from __future__ import annotations

import fcntl
import http.client
import json
import signal
import ssl
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

from components.programs.checkpointer.checkpoint import Refused, render
from components.programs.checkpointer.pods import (
    LEADERS,
    NAMESPACE,
    Object,
    Owner,
    instance,
    is_ready,
    newest,
)
from components.programs.checkpointer.state import Action, Situation, Timers, decide
from components.programs.checkpointer.store import Store

DIRECTORY = Path("/etc/kubernetes")
CA = DIRECTORY / "pki" / "ca.crt"
CLIENT = Path("/var/lib/kubelet/pki/kubelet-client-current.pem")

TICK_SECONDS = 2.0
REFRESH_SECONDS = 60.0
REQUEST_SECONDS = 5.0
# From then on a Ready pod counts; while nothing of its owner is saved it counts at once. At a shared port
# another instance may answer its probes: a broken one restarts within this time, and a good one listens by
# then. A kubelet writes statuses every 10 s, so that one from before an outage has gone as well.
SETTLED_SECONDS = 30.0
# A controller manager that ends once it leads may lead for 5 s before, each time: nobody has led then.
LED_SECONDS = 10.0


class Unavailable(Exception):
    """The API did not say what it was asked for."""


class Api(Protocol):
    """What the program asks the API."""

    def answers(self) -> bool:
        """Whether anything speaks HTTP at its port, be it that it is not well."""
        ...

    def get(self, path: str) -> Object | None:
        """An object or a list, None if there is none. Raises Unavailable."""
        ...


class LocalApi:
    """The apiserver on this host, asked as the kubelet."""

    def __init__(self, port: int) -> None:
        self._port = port

    def answers(self) -> bool:
        """See Api."""
        try:
            self._request("/livez")
        except (OSError, http.client.HTTPException):
            return False
        return True

    def get(self, path: str) -> Object | None:
        """See Api."""
        try:
            status, body = self._request(path)
            if status == 404:
                return None
            if status != 200:
                raise Unavailable(f"{path}: {status} {body[:200].decode(errors='replace')}")
            found: Object = json.loads(body)
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise Unavailable(f"{path}: {error!r}") from error
        return found

    def _request(self, path: str) -> tuple[int, bytes]:
        # The kubelet renews its certificate.
        context = ssl.create_default_context(cafile=CA)
        context.load_cert_chain(CLIENT)
        connection = http.client.HTTPSConnection(
            "127.0.0.1", self._port, timeout=REQUEST_SECONDS, context=context
        )
        try:
            connection.request("GET", path)
            answer = connection.getresponse()
            return answer.status, answer.read()
        finally:
            connection.close()


class Checkpointer:
    """Looks at one node's pods again and again, saves them, and arms and disarms what is saved."""

    def __init__(
        self, node: str, api: Api, store: Store, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._node, self._api, self._store, self._clock = node, api, store, clock
        self._timers = Timers()
        self._versions: dict[Owner, object] = {}
        self._renewed: dict[Owner, object] = {}
        self._saved: dict[Owner, tuple[object, float]] = {}
        self._said: dict[object, str] = {}

    def tick(self) -> None:
        """Looks once and does what there is to do."""
        pods = self._pods()
        dead = pods is None and not self._api.answers()
        owners = self._store.owners() | (pods or {}).keys()
        now, booted = self._clock(), self._store.booted()
        ready = [pod for each in (pods or {}).values() for pod in each if is_ready(pod, booted)]
        gone = (
            self._gone(owners - {owner for owner, found in pods.items() if found})
            if pods is not None
            else set()
        )
        leads, renewals = self._leadership(now) if pods is not None else ({}, {})
        lasting = {*map(instance, ready), *gone, *leads.values(), *renewals.values()}
        self._timers.hold(lasting | ({"dead"} if dead else set()), now)
        settled = [pod for pod in ready if self._timers.age(instance(pod), now) >= SETTLED_SECONDS]
        for owner in sorted(pods or {}):
            first = self._store.generation(owner) is None
            led_for = 0 if self._store.is_armed(owner) else self._timers.age(leads.get(owner), now)
            if owner in LEADERS and not first and led_for < SETTLED_SECONDS:
                continue  # Ready as a standby, beside a copy that leads say, it may end once it leads.
            source = newest([pod for pod in (ready if first else settled) if Owner.of(pod) == owner])
            if source:
                self._save(owner, source, now)
        situations = {
            owner: Situation(
                armed=self._store.is_armed(owner),
                settled=owner in {Owner.of(pod) for pod in settled},
                gone_for=self._timers.age(owner, now),
                unled_for=self._timers.age(renewals.get(owner), now),
            )
            for owner in sorted(owners)
        }
        for owner, action in decide(situations, self._timers.age("dead", now)).items():
            self._do(owner, action)

    def _pods(self) -> dict[Owner, list[Object]] | None:
        """Pods of this node that are to be saved, by owner; None if the API does not tell."""
        try:
            path = f"/api/v1/namespaces/{NAMESPACE}/pods?fieldSelector=spec.nodeName%3D{self._node}"
            found = self._api.get(path)
        except Unavailable as error:
            self._say("api", f"the API does not tell which pods run: {error}")
            return None
        self._say("api", "the API answers")
        pods: dict[Owner, list[Object]] = {}
        for pod in (found or {}).get("items", []):
            if owner := Owner.of(pod):
                pods.setdefault(owner, []).append(pod)
        return pods

    def _gone(self, missing: set[Owner]) -> set[Owner]:
        """Those without a pod here that have moved on: the node is known, and whoever has a leader serves
        elsewhere.
        """
        try:
            if not missing or self._api.get(f"/api/v1/nodes/{self._node}") is None:
                return set()
            return {owner for owner in missing if owner not in LEADERS or self._is_available(owner)}
        except Unavailable as error:
            self._say("gone", f"the API does not tell what has moved on: {error}")
            return set()

    def _is_available(self, owner: Owner) -> bool:
        found = self._api.get(f"/apis/apps/v1/namespaces/{owner.namespace}/deployments/{owner.name}")
        return bool((found or {}).get("status", {}).get("availableReplicas"))

    def _leadership(self, now: float) -> tuple[dict[Owner, object], dict[Owner, object]]:
        """Who leads, and what changes when one that has led for a while renews its lease.

        Without those of which the API does not tell.
        """
        leads: dict[Owner, object] = {}
        renewals: dict[Owner, object] = {}
        for owner in LEADERS:
            path = f"/apis/coordination.k8s.io/v1/namespaces/{owner.namespace}/leases/{owner.name}"
            try:
                lease = self._api.get(path) or {"metadata": {}}
            except Unavailable as error:
                self._say(path, f"the API does not tell who leads: {error}")
                continue
            # It does not tell either whether that is a copy.
            holder = lease.get("spec", {}).get("holderIdentity") or ""
            leads[owner] = ("leads", owner, holder, self._store.is_armed(owner))
            version = lease["metadata"].get("resourceVersion")
            # One that has ended has its lease for as long, and leaves it as it is.
            if version != self._versions.get(owner) and self._timers.age(leads[owner], now) >= LED_SECONDS:
                self._renewed[owner] = version
            self._versions[owner] = version
            renewals[owner] = ("renewed", owner, self._renewed.get(owner))
        return leads, renewals

    def _save(self, owner: Owner, pod: Object, now: float) -> None:
        """Saves a pod unless that was done a moment ago."""
        what, when = self._saved.get(owner, (None, 0.0))
        if what == instance(pod) and now - when < REFRESH_SECONDS and self._store.generation(owner):
            return

        def get(resource: str, name: str) -> Object | None:
            return self._api.get(f"/api/v1/namespaces/{owner.namespace}/{resource}/{name}")

        try:
            checkpoint = render(owner, pod, get)
            new = self._store.save(checkpoint)
        except (Refused, Unavailable, OSError) as error:
            self._say(owner, f"{owner} is not saved: {error}")
            return
        self._saved[owner] = (instance(pod), now)
        if new:
            self._say(owner, f"{owner} saved as {checkpoint.revision}, from {pod['metadata']['name']}")

    def _do(self, owner: Owner, action: Action) -> None:
        """Arms, disarms or forgets."""
        try:
            match action:
                case Action.ARM:
                    if not self._store.arm(owner):
                        self._say(owner, f"{owner} has no valid checkpoint: it cannot be armed")
                        return
                case Action.DISARM:
                    self._store.disarm(owner)
                case Action.FORGET:
                    self._store.forget(owner)
        except OSError as error:
            self._say(owner, f"{owner} could not be {action.value}: {error}")
            return
        self._say(owner, f"{owner} {action.value}")

    def _say(self, about: object, text: str) -> None:
        """Writes a line, once."""
        if self._said.get(about) != text:
            self._said[about] = text
            print(text, flush=True)


def main(arguments: Sequence[str]) -> None:
    """Works until it is ended, after the instance before it has ended."""
    node, port = arguments
    # The first process of a container ends by SIGTERM only if it says so.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    with (DIRECTORY / "checkpoints.lock").open("w") as lock:
        print("waiting for the lock", flush=True)
        fcntl.flock(lock, fcntl.LOCK_EX)
        print(f"watching the pods of {node}", flush=True)
        checkpointer = Checkpointer(node, LocalApi(int(port)), Store(DIRECTORY))
        while True:
            checkpointer.tick()
            time.sleep(TICK_SECONDS)


if __name__ == "__main__":
    main(sys.argv[1:])
