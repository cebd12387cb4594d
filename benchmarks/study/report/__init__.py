"""The study in the terminal, as a page and as a document."""
