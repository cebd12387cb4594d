"""What is shown: in the terminal, as a page, in the documentation."""
