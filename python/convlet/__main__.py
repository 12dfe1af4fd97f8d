"""`python -m convlet` is the command `convlet`."""

import sys

from convlet.cli import main

sys.exit(main())
