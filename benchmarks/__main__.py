"""`python -m leakyrelu_bench` is `leakyrelu-bench`."""

import sys

from .cli import main

if __name__ == "__main__":
    sys.exit(main())
