"""Errors of the builder.

BuilderError
├── NetworkError          a layer's inputs or parameters break its rules
│   └── PluginError       a plugin, its file or its kernels break theirs
├── ImportModelError      a model file cannot be imported; holds every problem found
├── UnsupportedError      no kernel family implements a layer for the target
├── CompileError          a compiler failed; the text holds command and log
├── RefitError            a model's weights do not go into a plan; names the layer
├── MeasureError          boards that cannot time candidates
├── TimingCacheError      unreadable cache, or a miss in a strict build
└── TargetError           unknown target, or facts that do not fit together
"""

from __future__ import annotations

from collections.abc import Sequence


class BuilderError(Exception):
    """Any reason why a plan cannot be built."""


class NetworkError(BuilderError):
    """A layer's inputs or parameters break its rules."""


class PluginError(NetworkError):
    """A plugin, its file or its kernels break their rules."""


class ImportModelError(BuilderError):
    """A model cannot be imported.

    Attributes:
        problems: one text per problem, each naming node or line, operator and what to do.
    """

    def __init__(self, path: str, problems: Sequence[str]) -> None:
        """Join all problems of one model into one report."""
        self.problems = tuple(problems)
        count = len(self.problems)
        head = f"{path}: {count} problem{'s' if count != 1 else ''}"
        super().__init__("\n  ".join([head, *self.problems]))


class UnsupportedError(BuilderError):
    """No kernel family implements a layer for the target."""


class CompileError(BuilderError):
    """A compiler failed."""


class RefitError(BuilderError):
    """A model's weights cannot be put into a plan."""


class MeasureError(BuilderError):
    """Boards cannot time candidates: they differ, or all were lost."""


class TimingCacheError(BuilderError):
    """The timing cache cannot be read, or lacks an entry in a strict build."""


class TargetError(BuilderError):
    """The target is unknown or contradicts itself."""
