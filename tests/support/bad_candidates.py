"""Candidates that behave, and candidates that do everything that native code can do wrong."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from builder_host.kernels.family import Launch
from builder_host.measure.base import MeasureJob

SOURCE = r"""
#include <stdint.h>
#include <stdlib.h>
#include <unistd.h>
#define ARGS void *const *args, int64_t begin, int64_t end, void *scratch
#define EP_EXPORT __attribute__((visibility("default")))

EP_EXPORT void good(ARGS) {
    volatile float *y = args[0];
    for (int i = 0; i < 1000; ++i) y[i & 15] += (float)begin;
}
EP_EXPORT void segfault(ARGS) { *(volatile int *)(intptr_t)16 = 1; }
EP_EXPORT void loops(ARGS) { for (volatile int i = 0;; i = 0) {} }
EP_EXPORT void allocates(ARGS) {
    for (;;) {
        volatile char *block = malloc(16 << 20);
        for (int i = 0; i < 16 << 20; i += 4096) block[i] = 1;
    }
}
EP_EXPORT void exits(ARGS) { _exit(0); }
EP_EXPORT void aborts(ARGS) { abort(); }
EP_EXPORT void babbles(ARGS) {
    static const char text[] = "{\"results\": 7}\nnonsense\n";
    for (int fd = 1; fd < 64; ++fd) if (write(fd, text, sizeof text - 1) < 0) continue;
}
EP_EXPORT void chatters(ARGS) {
    for (;;) babbles(args, begin, end, scratch);
}
EP_EXPORT void forks(ARGS) {
    if (fork() == 0) for (;;) pause();
    *(volatile int *)(intptr_t)16 = 1;
}
"""


def candidates(folder: Path, symbols: list[str]) -> list[MeasureJob]:
    """One job per function of SOURCE, in one group."""
    path = folder / "candidates.so"
    if not path.exists():
        (folder / "candidates.c").write_text(SOURCE)
        command = [sys.executable, "-m", "ziglang", "cc", "-O1", "-std=gnu11", "-fPIC", "-shared"]
        command += ["-fno-sanitize=all", "candidates.c", "-o", path.name]
        subprocess.run(command, cwd=folder, check=True)
    return [MeasureJob(str(path), (Launch(symbol, 1),), (64,), 0) for symbol in symbols]
