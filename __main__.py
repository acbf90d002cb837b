"""`python -m skrd4ad` is `skrd4ad`."""

import sys

from .cli import main

sys.exit(main())
