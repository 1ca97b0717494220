"""Times numpy's and torch's closeness checks on the arrays assay was timed on: FILE of float32, and assay's seconds."""
import sys
import time

import numpy
import torch

values = numpy.fromfile(sys.argv[1], dtype=numpy.float32)
ours = float(sys.argv[2])
other = values.copy()
as_torch, other_torch = torch.from_numpy(values).bfloat16(), torch.from_numpy(other).bfloat16()


def best(work):
    times = []
    for _ in range(5):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return min(times)


peers = {
    "numpy.testing.assert_allclose": lambda: numpy.testing.assert_allclose(values, other, rtol=1e-2, atol=1e-2),
    "torch.testing.assert_close, bf16": lambda: torch.testing.assert_close(as_torch, other_torch, rtol=1e-2, atol=1e-2),
}
for name, work in peers.items():
    seconds = best(work)
    print(f"{name:<34} {values.size / seconds / 1e6:8.1f}e6 elements per second; assay is {seconds / ours:.1f} times as fast")
