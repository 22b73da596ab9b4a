"""`python -m jig` is `jig`."""

import sys

from jig.cli import main

sys.exit(main())
