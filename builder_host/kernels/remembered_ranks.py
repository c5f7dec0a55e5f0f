"""Estimates of the kernel families, kept in the artifact store from build to build.

Layout assignment asks what every layer costs in every format. The answers follow from problem,
target and code alone; those for a network that was built before are read instead of worked out.
"""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import builder_host
import planformat
from builder_host.codegen.artifacts import ArtifactStore

_FILE = "ranks.json"
# What estimates are made of, in builder_host; of planformat all.
_SOURCES = (
    "codegen",
    "expressions.py",
    "kernels",
    "layouts.py",
    "network",
    "plugins",
    "registry.py",
    "targets",
)

Ranks = tuple[tuple[float, str], ...]  # microseconds and family, cheapest first


class RememberedRanks:
    """Ranks by `Problem.text()`: those of an earlier build of one network, and new ones."""

    def __init__(self, store: ArtifactStore, target: Any, network: Iterable[str]) -> None:
        """Read what is there.

        Args:
            store: where ranks are kept.
            target: that the estimates are for; its `repr` tells all that they depend on.
            network: texts that tell networks apart. Those that share them replace each other's
                ranks; no answer depends on it.
        """
        parts = ["ranks", _code_hash(), repr(target), *network]
        self._key = hashlib.sha256("\0".join(parts).encode()).hexdigest()
        self._store = store
        self._known = _read(store.get(self._key))
        self._asked: dict[str, Ranks] = {}

    def get(self, text: str) -> Ranks | None:
        """Ranks of a problem, or None."""
        found = self._known.get(text)
        if found is not None:
            self._asked[text] = found
        return found

    def put(self, text: str, ranks: Ranks) -> None:
        """Take what was worked out."""
        self._asked[text] = ranks

    def save(self) -> None:
        """Store what this build asked for, if an answer was new."""
        if self._asked.keys() <= self._known.keys():
            return
        self._store.remove(self._key)
        self._store.put(self._key, {_FILE: json.dumps(self._asked, sort_keys=True)})


def _read(folder: Path | None) -> dict[str, Ranks]:
    if folder is None:
        return {}
    try:
        rows = json.loads((folder / _FILE).read_bytes())
        return {
            text: tuple((float(cost), str(family)) for cost, family in ranks)
            for text, ranks in rows.items()
        }
    except (OSError, ValueError, TypeError, AttributeError):
        return {}  # cut short by a power cut or a full disk; `save` replaces it


@functools.cache
def _code_hash() -> str:
    own, other = (Path(next(iter(package.__path__))) for package in (builder_host, planformat))
    digest = hashlib.sha256()
    for place in [*(own / name for name in _SOURCES), other]:
        files = [place] if place.is_file() else sorted(place.rglob("*.py"))
        for path in files:
            content = path.read_bytes()
            digest.update(f"{path.name} {len(content)}\0".encode() + content)
    return digest.hexdigest()
