"""Remembers which plan files worked and which ended the process, for the next start."""

from __future__ import annotations

import json
import logging
import os
from typing import Any

_log = logging.getLogger(__name__)

_FILE = "last_good.json"
MAX_ENDS = 2
"""Starts that may end while a plan is loaded before it is left out; one may be bad luck."""


class LastGood:
    """A small file about plan files, by the plan's name, with links resolved.

    `good`: what last passed its canary. `trying`: what is being loaded, and how often that began
    without an end: a plan that crashes the process, or takes the GPU along, is known by that.
    Without a folder nothing is kept.
    """

    def __init__(self, folder: str) -> None:
        """Keep the file in a folder; empty keeps nothing."""
        self._folder = folder

    def good(self, name: str) -> str:
        """Path of what worked, empty when nothing did."""
        path = self._read()["good"].get(name, "")
        return path if isinstance(path, str) else ""

    def num_ends(self, name: str, path: str) -> int:
        """How often the process ended while this file was being loaded."""
        entry = self._read()["trying"].get(name)
        if not isinstance(entry, list) or len(entry) != 2 or entry[0] != path:
            return 0
        return entry[1] if isinstance(entry[1], int) else 0

    def begin(self, name: str, path: str) -> None:
        """A load begins."""
        if not self._folder:
            return
        num = self.num_ends(name, path)
        content = self._read()
        content["trying"][name] = [path, num + 1]
        self._write(content)

    def end(self, name: str, path: str, *, is_good: bool) -> None:
        """The load has ended, and the process lives."""
        if not self._folder:
            return
        content = self._read()
        content["trying"].pop(name, None)
        if is_good:
            content["good"][name] = path
        self._write(content)

    def _read(self) -> dict[str, dict[str, Any]]:
        empty: dict[str, dict[str, Any]] = {"good": {}, "trying": {}}
        if not self._folder:
            return empty
        try:
            with open(os.path.join(self._folder, _FILE), encoding="utf-8") as file:
                content = json.load(file)
        except (OSError, ValueError) as error:
            _log.info("%s: no record of what worked: %s", self._folder, error)
            return empty
        if not isinstance(content, dict):
            return empty
        known = {key: content.get(key) for key in empty}
        return {key: value if isinstance(value, dict) else {} for key, value in known.items()}

    def _write(self, content: dict[str, dict[str, Any]]) -> None:
        """Replace the file in one step."""
        target = os.path.join(self._folder, _FILE)
        try:
            os.makedirs(self._folder, exist_ok=True)
            with open(target + ".new", "w", encoding="utf-8") as file:
                json.dump(content, file)
                file.flush()
                os.fsync(file.fileno())
            os.replace(target + ".new", target)
        except OSError as error:
            _log.warning("%s: cannot remember which plans work: %s", target, error)
