"""Callers of one server, each with a connection of its own and its next request as soon as it has its answer."""

import http.client
import random
import statistics
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

_WORDS = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8").split()
_AGAIN_S = 0.001  # an emulator whose runtime has just answered, and not asked for another call, refuses it


@dataclass(frozen=True)
class Load:
    """What callers got: answers a second, and how long they waited, ascending, in ms."""

    rate: float
    latencies: list[float]
    processor_ms: float  # of the server's process, for each answer

    @property
    def median(self) -> float:
        return statistics.median(self.latencies)

    @property
    def late(self) -> float:
        """The 99th percentile."""
        return self.latencies[len(self.latencies) * 99 // 100]


def text(number: int) -> str:
    """The text of this number: 5 to 60 words."""
    draw = random.Random(number)
    return " ".join(draw.choices(_WORDS, k=draw.randint(5, 60)))


def load(
    url: str, head: dict[str, str], body: Callable[[int], bytes], callers: int, seconds: float, pids: Sequence[int]
) -> Load:
    """POST bodies, by their numbers, to a URL for so long. RuntimeError for an answer that is no 200."""
    where = urlsplit(url)
    bodies = [body(number) for number in range(256)]
    taken: list[list[float]] = [[] for _ in range(callers)]
    wrong: list[str] = []
    ready = threading.Barrier(callers + 1)

    def call(caller: int) -> None:
        connection = http.client.HTTPConnection(str(where.hostname), where.port, timeout=120)
        connection.connect()
        number = caller * 17
        ready.wait()
        while time.perf_counter() < end[0] and not wrong:
            start = time.perf_counter()
            while True:
                connection.request("POST", where.path, bodies[number % len(bodies)], head)
                answer = connection.getresponse()
                received = answer.read()
                if b"Runtime.Unavailable" not in received:
                    break
                time.sleep(_AGAIN_S)
            taken[caller].append((time.perf_counter() - start) * 1e3)
            if answer.status != 200 or b"embedding" not in received[:200]:
                wrong.append(f"{answer.status} {received[:500]!r}")
            number += 1
        connection.close()

    threads = [threading.Thread(target=call, args=(caller,)) for caller in range(callers)]
    end = [time.perf_counter() + 60]
    for each in threads:
        each.start()
    before, start = sum(map(processor_s, pids)), time.perf_counter()
    end[0] = start + seconds
    ready.wait()
    for each in threads:
        each.join()
    took = time.perf_counter() - start
    if wrong:
        raise RuntimeError(wrong[0])
    latencies = sorted(each for caller in taken for each in caller)
    spent = (sum(map(processor_s, pids)) - before) * 1e3 / len(latencies)
    return Load(len(latencies) / took, latencies, spent)


def pairs(
    urls: Sequence[str], head: dict[str, str], body: Callable[[int], bytes], seconds: float
) -> list[tuple[float, ...]]:
    """How long one caller waits at each of the URLs for the same body, in ms, for as many bodies as there is time: each
    URL is the first in turn. RuntimeError for an answer that is no 200."""
    where = [urlsplit(url) for url in urls]
    connections = [http.client.HTTPConnection(str(each.hostname), each.port, timeout=120) for each in where]
    bodies = [body(number) for number in range(256)]
    found: list[tuple[float, ...]] = []
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        took = [0.0] * len(urls)
        for step in range(len(urls)):
            place = (len(found) + step) % len(urls)
            start = time.perf_counter()
            connections[place].request("POST", where[place].path, bodies[len(found) % len(bodies)], head)
            answer = connections[place].getresponse()
            received = answer.read()
            took[place] = (time.perf_counter() - start) * 1e3
            if answer.status != 200:
                raise RuntimeError(f"{answer.status} {received[:500]!r}")
        found.append(tuple(took))
    for each in connections:
        each.close()
    return found


def processor_s(pid: int) -> float:
    """Processor time of a process, all its threads, so far."""
    user, system = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[11:13]
    return (int(user) + int(system)) / 100


def memory_mib(pids: Sequence[int]) -> float:
    """Of processes together; what they share counts once."""
    rollups = [Path(f"/proc/{pid}/smaps_rollup").read_text() for pid in pids]
    return sum(int(text.partition("\nPss:")[2].split()[0]) for text in rollups) / 1024
