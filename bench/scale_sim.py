"""A simulation of a run on many machines that fail, checked against real runs on this one.

Workers pull parts from one queue. A part takes its time, and the commit to the store its own; some parts are
stragglers. A machine fails after an exponentially distributed time: the parts of its workers go back to the head of
the queue, and it is there again after a while. The scan before and the assembly after are the head's alone.

The check: two short real runs, with one worker and with the most, give the constants: how long workers take to start,
what a part costs beyond its computing, and the head's time an input. With them, longer runs with one, two and four
workers are predicted, and then done. The stage of these runs waits as a GPU's worker does (see bench/scale.py).

Run: `python bench/scale_sim.py [--machines 1 10 100] [--tracks 10000000] [--speed 400] [--mtbf 24] [--no-check]`.
"""

from __future__ import annotations

import argparse
import heapq
import json
import random
import sys
import tempfile
from collections import deque
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from scale import PART_SECONDS, Clock, make_corpus, stage_of, timed

LIMIT = 0.25  # by which a prediction may be wrong


@dataclass(frozen=True)
class Cluster:
    """What is simulated; times in seconds."""

    machines: int
    workers: int  # a machine
    part: float  # computing
    commit: float  # what a part costs beyond: latency of the store, the engine's own work
    start: float  # from a machine's being there to its workers' first part
    before: float = 0.0  # scan and plan
    after: float = 0.0  # assembly
    mtbf: float = float("inf")  # of a machine
    restart: float = 0.0  # until a failed machine is back
    straggling: float = 0.0  # share of the parts
    slower: float = 1.0  # how much longer they take


@dataclass(frozen=True)
class Simulated:
    seconds: float
    redone: float  # share of the parts that were begun again
    efficiency: float  # computing, to the time of all workers


def simulate(cluster: Cluster, parts: int, seed: int = 0) -> Simulated:
    """Plays one run, event by event."""
    rng = random.Random(seed)
    waiting = deque(range(parts))
    running: list[dict[int, int]] = [{} for _ in range(cluster.machines)]  # by machine: the part of each worker
    lives = [0] * cluster.machines  # how often a machine has failed: events of an earlier life are void
    events: list[tuple[float, int, str, int, int]] = []
    idle: set[tuple[int, int]] = set()
    left, begun, now = parts, 0, cluster.before

    def later(seconds: float, kind: str, machine: int, worker: int = 0) -> None:
        heapq.heappush(events, (now + seconds, lives[machine], kind, machine, worker))

    def begin(machine: int, worker: int) -> None:
        nonlocal begun
        if not waiting:
            idle.add((machine, worker))
            return
        running[machine][worker] = waiting.popleft()
        begun += 1
        slower = cluster.slower if rng.random() < cluster.straggling else 1.0
        later(cluster.part * slower + cluster.commit, "done", machine, worker)

    def come(machine: int) -> None:
        for worker in range(cluster.workers):
            later(cluster.start, "ready", machine, worker)
        if cluster.mtbf < float("inf"):
            later(rng.expovariate(1 / cluster.mtbf), "fail", machine)

    for machine in range(cluster.machines):
        come(machine)
    while left:
        now, life, kind, machine, worker = heapq.heappop(events)
        if life != lives[machine]:
            continue
        if kind == "fail":
            lives[machine] += 1
            waiting.extendleft(running[machine].values())
            running[machine].clear()
            idle -= {(machine, one) for one in range(cluster.workers)}
            later(cluster.restart, "back", machine)
            for other in list(idle):
                idle.discard(other)
                begin(*other)
        elif kind == "back":
            come(machine)
        else:
            if kind == "done":
                del running[machine][worker]
                left -= 1
            begin(machine, worker)
    seconds = now + cluster.after
    efficiency = parts * cluster.part / (seconds * cluster.machines * cluster.workers)
    return Simulated(seconds, begun / parts - 1, efficiency)


def check(parts: int, workers: list[int]) -> list[dict[str, Any]]:
    """Predicted and real seconds of runs with several numbers of workers."""
    most = max(workers)

    def real(number: int, parts: int) -> Clock:
        return timed(corpus[parts], folder / f"{number}-{parts}", stage_of("wait"), "local", number)

    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        sizes = (parts // 3, parts)
        corpus = {size: make_corpus(folder / f"corpus-{size}", size * 4) for size in sizes}
        one, many = real(1, sizes[0]), real(most, sizes[0])
        starts = {clock: clock.parts[0] - clock.phases["plan"] - PART_SECONDS for clock in (one, many)}
        slope = (starts[many] - starts[one]) / (most - 1)  # workers that start at once share the cores
        overhead = 1 / one.rate(1) - PART_SECONDS
        rows = []
        for number in workers:
            start = starts[one] + slope * (number - 1)
            before, after = one.phases["plan"], one.phases["assemble"] - one.phases["work"]
            cluster = Cluster(1, number, PART_SECONDS, overhead, start, 3 * before, 3 * after)
            predicted = simulate(cluster, parts).seconds
            rows.append({"workers": number, "predicted": predicted, "real": real(number, parts).phases["assemble"]})
    return rows


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--machines", type=int, nargs="+", default=[1, 10, 100])
    parser.add_argument("--gpus", type=int, default=1, help="a machine: so many workers")
    parser.add_argument("--tracks", type=int, default=10_000_000)
    parser.add_argument("--minutes", type=float, default=3.5, help="of a track")
    parser.add_argument("--tracks-a-part", type=int, default=128, help="a part holds up to 1 GiB: of MP3 about so many")
    parser.add_argument("--speed", type=float, default=400, help="of one GPU's encoder, times real time")
    parser.add_argument("--commit", type=float, default=1.0, help="seconds that a part's commit takes")
    parser.add_argument("--mtbf", type=float, default=24.0, help="hours until a machine fails")
    parser.add_argument("--restart", type=float, default=10.0, help="minutes until a failed machine works again")
    parser.add_argument("--stragglers", type=float, default=0.01, help="share of the parts that take 5 times as long")
    parser.add_argument("--head", type=float, default=0.0001, help="seconds an input takes in scan, plan and assembly")
    parser.add_argument("--parts", type=int, default=90, help="of a real run")
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2, 4], help="of the real runs")
    parser.add_argument("--no-check", action="store_true", help="no real runs")
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of the text")
    options = parser.parse_args()

    parts = -(-options.tracks // options.tracks_a_part)
    rows = []
    for machines in options.machines:
        cluster = Cluster(
            machines, options.gpus, options.tracks_a_part * options.minutes * 60 / options.speed, options.commit, 60.0,
            options.head * options.tracks / 2, options.head * options.tracks / 2, options.mtbf * 3600,
            options.restart * 60, options.stragglers, 5.0,
        )  # fmt: skip
        found = simulate(cluster, parts)
        rows.append({"machines": machines, "hours": found.seconds / 3600, "redone": found.redone,
                     "efficiency": found.efficiency})  # fmt: skip
    checked = [] if options.no_check else check(options.parts, options.workers)
    if options.json:
        print(json.dumps({"simulated": rows, "checked": checked}))
    else:
        print(f"{parts} parts\nmachines      hours   begun again   efficiency")
        for row in rows:
            print("{machines:8}{hours:11.1f}{redone:14.2%}{efficiency:13.3f}".format(**row))
        print("\nworkers   predicted, s   real, s" if checked else "")
        for row in checked:
            print("{workers:7}{predicted:15.1f}{real:10.1f}".format(**row))
    return int(any(abs(row["predicted"] / row["real"] - 1) > LIMIT for row in checked))


if __name__ == "__main__":
    sys.exit(main())
