"""The documentation site: what the code's own tables say (``pages``), and pictures (``pictures``)."""
