"""A client that opens a new TLS connection for every request, as many a second as it is told, and counts.

Standard library only: it also runs on a lab host. It tries a failed request once more at once and, where that
fails as well, a second later, which is when client-go retries. A handshake has ten seconds, as there. On
SIGTERM, or when its input ends, it prints a summary as JSON.

    prober.py HOST PORT RATE < {"ca": PEM, "cert": PEM, "key": PEM}
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import ssl
import sys
import tempfile
import time

PATH = "/api/v1/namespaces/kube-system"
HANDSHAKE_SECONDS = 10.0
ANSWER_SECONDS = 30.0
CLIENT_GO_RETRY_SECONDS = 1.0
SLOW_SECONDS = 1.0


class Tally:
    """What happened to the requests so far."""

    def __init__(self) -> None:
        self.requests = 0
        self.raw_failures: list[dict[str, object]] = []
        self.failed_after_retry: list[dict[str, object]] = []
        self.lost: list[dict[str, object]] = []
        self.slow: list[tuple[float, float]] = []
        self.slowest = 0.0
        self.longest_without_answer = 0.0
        self._answered = time.time()

    def answered(self, now: float) -> None:
        """Some request was answered now: how long had none been?"""
        self.longest_without_answer = max(self.longest_without_answer, now - self._answered)
        self._answered = now

    def took(self, start: float, seconds: float) -> None:
        """Such a request has ended, answered or not."""
        self.slowest = max(self.slowest, seconds)
        if seconds > SLOW_SECONDS:
            self.slow.append((round(start, 3), round(seconds, 3)))

    def summary(self) -> dict[str, object]:
        """The counts, with the first failures in words."""
        return {
            "requests": self.requests,
            "raw_failures": len(self.raw_failures),
            "failed_after_retry": len(self.failed_after_retry),
            "lost": len(self.lost),
            "slowest_seconds": round(self.slowest, 3),
            "slow": sorted(self.slow, key=lambda each: each[1])[-5:],
            "seconds_without_answer": round(self.longest_without_answer, 3),
            "failures": (self.lost + self.failed_after_retry + self.raw_failures)[:20],
        }


async def attempt(host: str, port: int, context: ssl.SSLContext) -> str | None:
    """One request on a connection of its own; what went wrong, or None."""
    writer = None
    try:
        reader, writer = await asyncio.wait_for(
            asyncio.open_connection(host, port, ssl=context, ssl_handshake_timeout=HANDSHAKE_SECONDS),
            HANDSHAKE_SECONDS + 1,
        )
        writer.write(f"GET {PATH} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode())
        await writer.drain()
        status = await asyncio.wait_for(reader.readline(), ANSWER_SECONDS)
        rest = await asyncio.wait_for(reader.read(), ANSWER_SECONDS)
        if b" 200 " in status:
            return None
        return (status + rest[:500]).decode(errors="replace") or "the connection ended without an answer"
    except (TimeoutError, OSError, ssl.SSLError) as error:
        return f"{type(error).__name__}: {error}"
    finally:
        if writer is not None:
            writer.transport.abort()


async def request(host: str, port: int, context: ssl.SSLContext, tally: Tally) -> None:
    """One request and, if it fails, one at once; if that fails, the one that client-go would have sent."""
    start = time.time()
    tally.requests += 1
    problem = await attempt(host, port, context)
    if problem is not None:
        tally.raw_failures.append({"at": start, "error": problem})
        problem = await attempt(host, port, context)
        if problem is not None:
            tally.failed_after_retry.append({"at": start, "error": problem})
            await asyncio.sleep(CLIENT_GO_RETRY_SECONDS)
            problem = await attempt(host, port, context)
            if problem is not None:
                tally.lost.append({"at": start, "error": problem})
    if problem is None:
        tally.answered(time.time())
    tally.took(start, time.time() - start)


async def probe(host: str, port: int, rate: float, credentials: dict[str, str]) -> Tally:
    """Sends requests at a steady rate, whatever becomes of the earlier ones, until it is told to stop."""
    context = ssl.create_default_context(cadata=credentials["ca"])
    context.check_hostname = False
    with tempfile.NamedTemporaryFile("w") as pem:  # 0600, and gone at once: load_cert_chain takes files only
        pem.write(credentials["cert"] + credentials["key"])
        pem.flush()
        context.load_cert_chain(pem.name)
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGTERM, stop.set)
    loop.add_reader(sys.stdin.fileno(), lambda: None if os.read(sys.stdin.fileno(), 1) else stop.set())
    tally, running = Tally(), set()
    begin = loop.time()
    while not stop.is_set():
        due = begin + tally.requests / rate
        if due > loop.time():
            await asyncio.sleep(due - loop.time())
        task = asyncio.create_task(request(host, port, context, tally))
        running.add(task)
        task.add_done_callback(running.discard)
        await asyncio.sleep(0)
    await asyncio.gather(*running)
    return tally


def main() -> None:
    """Reads the credentials from the first line of its input."""
    host, port, rate = sys.argv[1], int(sys.argv[2]), float(sys.argv[3])
    credentials = json.loads(sys.stdin.readline())
    print(json.dumps(asyncio.run(probe(host, port, rate, credentials)).summary()), flush=True)


if __name__ == "__main__":
    main()
