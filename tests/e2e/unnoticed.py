"""That nobody notices what is done to a cluster: clients, a watch, a user's Service, a writer."""

from __future__ import annotations

import ssl
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import httpx

from tests.e2e.probing import Prober, credentials
from tests.e2e.stacks import Stack
from tests.e2e.witnesses import Writer, lost

RAW_FAILURES = 1 / 2000
WATCH_SECONDS = 2.0


class Watcher:
    """Watches the ConfigMaps that a writer makes, as client-go does: a watch that ends is begun anew at once.

    Beside it, it counts the ready endpoints of the user's Service.
    """

    def __init__(self, endpoint: str, known: dict[str, str], pair: str) -> None:
        self._endpoint = endpoint
        self._context = ssl.create_default_context(cadata=known["ca"])
        self._context.load_cert_chain(pair)
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=each) for each in (self._watch, self._count)]
        self.longest_gap = 0.0
        self.watches = 0
        self.fewest = 99

    def __enter__(self) -> Watcher:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(timeout=30)

    def _client(self) -> httpx.Client:
        return httpx.Client(base_url=self._endpoint, verify=self._context, timeout=5, trust_env=False)

    def _watch(self) -> None:
        path = "/api/v1/namespaces/default/configmaps"
        lost_at: float | None = None
        with self._client() as client:
            while not self._stop.is_set():
                heard = time.monotonic()
                with suppress(httpx.HTTPError):
                    listed = client.get(path, params={"limit": "1"})
                    listed.raise_for_status()
                    since = {"resourceVersion": listed.json()["metadata"]["resourceVersion"], "watch": "true"}
                    with client.stream("GET", path, params=since) as events:
                        events.raise_for_status()
                        if lost_at is not None:
                            gap, lost_at = time.monotonic() - lost_at, None
                            self.longest_gap = max(self.longest_gap, gap)
                            print(f"{time.time():.3f}: the watch is back after {gap:.2f} s")
                        # Somebody writes five a second: five seconds of silence are a loss.
                        for _ in events.iter_lines():
                            heard = time.monotonic()
                            if self._stop.is_set():
                                return
                        heard = time.monotonic()  # it was ended in good order
                    self.watches += 1
                lost_at = lost_at or heard

    def _count(self) -> None:
        path = "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices"
        with self._client() as client:
            while not self._stop.wait(0.2):
                with suppress(httpx.HTTPError):
                    found = client.get(path, params={"labelSelector": "kubernetes.io/service-name=served"})
                    found.raise_for_status()
                    self.fewest = min(self.fewest, sum(map(_ready, found.json()["items"])))


def _ready(endpoints: dict[str, Any]) -> int:
    return sum(bool(each["conditions"].get("ready")) for each in endpoints.get("endpoints") or [])


@contextmanager
def unnoticed(stack: Stack, controller: str, prefix: str, tmp_path: Path) -> Iterator[None]:
    """Clients at the endpoint and at the service address lose nothing meanwhile, a watch is back at once, the
    user's Service always has a pod, and what the API acknowledged is there.
    """
    known = credentials(stack)
    assert known is not None
    pair = tmp_path / "pair.pem"
    pair.touch(mode=0o600)
    pair.write_text(known["cert"] + known["key"])
    begin = time.monotonic()
    with (
        Prober.start(known, controller, 6443) as at_endpoint,
        Prober.start(known, "10.3.0.1", 443, inside=f"{stack.name}-worker-1") as at_service,
        Watcher(f"https://{controller}:6443", known, str(pair)) as watcher,
        Writer(f"https://{controller}:6443", known, prefix) as writer,
    ):
        yield
        writer.writes_on()
        counts = {"endpoint": at_endpoint.stop(), "service": at_service.stop()}
    print(
        f"{prefix}: {time.monotonic() - begin:.0f} s; {counts}; {watcher.watches} watches ended, "
        f"back after {watcher.longest_gap:.2f} s at most; at least {watcher.fewest} endpoints"
    )
    for where, client in counts.items():
        assert client["requests"] > 20 * (time.monotonic() - begin), where
        assert client["failed_after_retry"] == 0, client
        assert client["raw_failures"] <= client["requests"] * RAW_FAILURES, client
    assert watcher.watches >= 1, "no watch was ended: the test proves nothing"
    assert watcher.longest_gap <= WATCH_SECONDS
    assert 1 <= watcher.fewest <= 2
    assert lost(stack, writer.acknowledged) == set()
