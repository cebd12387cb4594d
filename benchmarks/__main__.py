"""`python -m leakyrelu_bench` is `leakyrelu-bench`."""

import os
import sys
from typing import NoReturn

from .cli import main


def leave(code: int) -> NoReturn:
    """Ends the process; under torchrun without the interpreter's shutdown.

    Gloo's threads may still be letting go of tensors. Python ends a thread that asks for its lock during the shutdown, and
    with it the process (pytorch#179291).
    """
    if "TORCHELASTIC_RUN_ID" in os.environ:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    sys.exit(code)


if __name__ == "__main__":
    leave(main())
