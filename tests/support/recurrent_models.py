"""Audio as the recurrent reference cases take it."""

from __future__ import annotations

import wave
from typing import Any

import numpy as np

from support.cases import DATA

Array = np.ndarray[Any, Any]

CHUNK, CONTEXT = 512, 64


def speech(paths: list[str]) -> Array:
    """Clips one after another as float32 in [-1, 1)."""
    parts = []
    for path in paths:
        with wave.open(str(DATA / path)) as clip:
            frames = clip.readframes(clip.getnframes())
        parts.append(np.frombuffer(frames, np.int16).astype(np.float32) / 32768)
    return np.concatenate(parts)


def speech_chunks(samples: Array) -> list[Array]:
    """Rows of 64 samples of context and 512 new ones, as far as there are whole chunks."""
    padded = np.concatenate([np.zeros(CONTEXT, np.float32), samples])
    count = len(samples) // CHUNK
    return [padded[None, i * CHUNK : i * CHUNK + CONTEXT + CHUNK] for i in range(count)]
