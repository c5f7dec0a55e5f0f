"""Content-addressed store of everything that was generated.

One folder per artifact, named by the hash of all that shaped it: source, command line, compiler
log, object. Folders appear whole (written aside, then renamed), so that builds that run at once
can share a store. A folder of a failed compilation keeps its source and log but is never reused.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

FAILED_SUFFIX = ".failed"
_STALE_PREFIX = ".new-"


def default_root() -> Path:
    """The artifact folder below the user's cache folder, e.g. `~/.cache/edgeplan/artifacts`."""
    return Path("~/.cache").expanduser() / "edgeplan" / "artifacts"


@dataclass(frozen=True, slots=True)
class CleanReport:
    """What `ArtifactStore.clean` did; sizes in bytes."""

    num_removed: int
    removed_bytes: int
    kept_bytes: int


class ArtifactStore:
    """Artifacts by key below one folder; safe for several processes at once."""

    def __init__(self, root: str | os.PathLike[str] | None = None) -> None:
        """Open or create a store. `root` defaults to `default_root()`."""
        self.root = Path(root) if root is not None else default_root()
        (self.root / "objects").mkdir(parents=True, exist_ok=True)

    def folder(self, key: str) -> Path:
        """Where the artifact of a key lies or would lie."""
        return self.root / "objects" / key[:2] / key

    def get(self, key: str) -> Path | None:
        """Folder of a stored artifact, marked as used now, or None."""
        folder = self.folder(key)
        if not folder.is_dir():
            return None
        with contextlib.suppress(OSError):  # the mark only orders removals
            os.utime(folder)
        return folder

    def put(self, key: str, files: Mapping[str, bytes | str], *, is_failed: bool = False) -> Path:
        """Store files under a key and return their folder.

        Of two writers of one key the first wins; equal keys stand for equal contents. A failed
        artifact is kept aside for reading, the newest replaces an older one.
        """
        folder = self.folder(key)
        if is_failed:
            folder = folder.with_name(folder.name + FAILED_SUFFIX)
        folder.parent.mkdir(parents=True, exist_ok=True)
        fresh = Path(tempfile.mkdtemp(prefix=_STALE_PREFIX, dir=folder.parent))
        try:
            for name, content in files.items():
                data = content.encode() if isinstance(content, str) else content
                (fresh / name).write_bytes(data)
            fresh.chmod(0o755)
            if is_failed and folder.is_dir():
                shutil.rmtree(folder, ignore_errors=True)
            try:
                fresh.rename(folder)
            except OSError:
                if not folder.is_dir():
                    raise
        finally:
            shutil.rmtree(fresh, ignore_errors=True)
        return folder

    def remove(self, key: str) -> None:
        """Forget an artifact that turned out to be damaged."""
        shutil.rmtree(self.folder(key), ignore_errors=True)

    def size_bytes(self) -> int:
        """Size of all artifacts."""
        return sum(_size_bytes(folder) for folder in self._folders())

    def clean(self, max_bytes: int) -> CleanReport:
        """Remove artifacts, the least recently used first, until the rest fits in `max_bytes`.

        Call it when no build is running on the store: a build may be about to load what goes.
        """
        aged = sorted((folder.stat().st_mtime_ns, str(folder)) for folder in self._folders())
        sizes = {path: _size_bytes(Path(path)) for _, path in aged}
        total = sum(sizes.values())
        removed = removed_bytes = 0
        for _, path in aged:
            if total - removed_bytes <= max_bytes:
                break
            shutil.rmtree(path)
            removed, removed_bytes = removed + 1, removed_bytes + sizes[path]
        return CleanReport(removed, removed_bytes, total - removed_bytes)

    def _folders(self) -> list[Path]:
        return sorted(p for p in (self.root / "objects").glob("*/*") if p.is_dir())


def _size_bytes(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.iterdir() if path.is_file())
