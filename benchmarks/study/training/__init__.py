"""One training: its configuration, network, loop and outcome, and many of them in processes."""
