"""`python -m scd.cli`, the same as `scd`."""

import sys

from scd.cli import main

sys.exit(main())
