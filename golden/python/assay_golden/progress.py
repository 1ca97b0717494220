"""A line of progress on stderr, only where a person sees it."""

import sys


class Progress:
    def __init__(self, text, total):
        self.text, self.total, self.done = text, total, 0
        self.shown = sys.stderr.isatty()

    def __enter__(self):
        return self

    def step(self):
        self.done += 1
        if self.shown:
            print(f"\r{self.text} {self.done}/{self.total}", end="", file=sys.stderr, flush=True)

    def __exit__(self, *_):
        if self.shown:
            print("\r\x1b[K", end="", file=sys.stderr, flush=True)
