"""Text that several convolution kernels share; each generated source carries it itself."""

from __future__ import annotations

import re
from pathlib import Path

_FOLDER = Path(__file__).parent
_INCLUDE = re.compile(r'^#include "(epilogue|tiles|units)\.h"\n', re.MULTILINE)


def with_headers(template: str) -> str:
    """A template with the headers beside this module in the place of its lines `#include`."""
    return _INCLUDE.sub(lambda found: (_FOLDER / f"{found[1]}.h").read_text(), template)
