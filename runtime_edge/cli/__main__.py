"""`python -m runtime_edge.cli` is the `edgeplan` command."""

import sys

from runtime_edge.cli import main

sys.exit(main())
