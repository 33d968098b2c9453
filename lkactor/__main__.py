"""`python -m lkactor`: see `lkactor.cli`."""

from __future__ import annotations

import sys

from lkactor.cli.main import main as main

if __name__ == "__main__":
    sys.exit(main())
