"""The experts' weights of a fixture, made one by one in threads: no more than a few of them are held. No torch."""

import os
from collections import deque
from concurrent.futures import ThreadPoolExecutor

from .fills import generate_expert
from .schema import array_hash

EXPERT_WEIGHTS = ("gate_up_proj", "down_proj")


def _in_order(pool, work, jobs, ahead):
    """Results of work(*job) in order, with at most `ahead` of them waiting in memory."""
    waiting = deque()
    for job in jobs:
        if len(waiting) == ahead:
            yield waiting.popleft().result()
        waiting.append(pool.submit(work, *job))
    while waiting:
        yield waiting.popleft().result()


def generated_experts(generators, threads=None):
    """(field, expert, bits, sha256) of every expert of both projections, made in threads."""

    def make(name, expert):
        bits = generate_expert(generators[name], expert)
        return name, expert, bits, array_hash(bits)

    threads = threads or os.cpu_count() or 1
    jobs = ((name, expert) for name in EXPERT_WEIGHTS for expert in range(generators[name].shape[0]))
    with ThreadPoolExecutor(threads) as pool:
        yield from _in_order(pool, make, jobs, 2 * threads)
