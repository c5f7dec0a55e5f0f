"""`python -m builder_host.planexec`."""

from __future__ import annotations

import sys

from builder_host.planexec.main import main

sys.exit(main())
