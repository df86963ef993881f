"""`python -m jaxbench.cli`: the same as `jaxbench`."""

import sys

from jaxbench.cli import main

if __name__ == "__main__":
    sys.exit(main())
