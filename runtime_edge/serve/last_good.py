"""Remembers which plan files worked, for a start while the configured one is broken."""

from __future__ import annotations

import json
import logging
import os

_log = logging.getLogger(__name__)

_FILE = "last_good.json"


class LastGood:
    """A small file: name of the plan -> path, links resolved, of what last passed its canary."""

    def __init__(self, folder: str) -> None:
        """Keep the file in a folder; empty keeps nothing."""
        self._folder = folder

    def read(self) -> dict[str, str]:
        """What worked; nothing when the file is missing or damaged."""
        if not self._folder:
            return {}
        try:
            with open(os.path.join(self._folder, _FILE), encoding="utf-8") as file:
                content = json.load(file)
        except (OSError, ValueError) as error:
            _log.info("%s: no record of what worked: %s", self._folder, error)
            return {}
        if not isinstance(content, dict):
            return {}
        return {name: path for name, path in content.items() if isinstance(path, str)}

    def remember(self, name: str, path: str) -> None:
        """Record a plan that works; the file holds the old or the new content at any moment."""
        known = self.read()
        if not self._folder or known.get(name) == path:
            return
        known[name] = path
        target = os.path.join(self._folder, _FILE)
        try:
            os.makedirs(self._folder, exist_ok=True)
            with open(target + ".new", "w", encoding="utf-8") as file:
                json.dump(known, file)
                file.flush()
                os.fsync(file.fileno())
            os.replace(target + ".new", target)
        except OSError as error:
            _log.warning("%s: cannot remember which plan worked: %s", target, error)
