"""`python -m skrd4ad` is `skrd4ad`."""

import sys

try:
    from .cli import command
except KeyboardInterrupt:  # before there is anything that could say so more kindly
    sys.exit(130)

command()
