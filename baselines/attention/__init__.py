"""Methods that read attention weights alone."""
