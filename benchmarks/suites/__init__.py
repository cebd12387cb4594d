"""What is measured: the suites, their cases and contestants."""
