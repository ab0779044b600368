"""One module per on-disk layout: ``names``, ``write_image``, ``write_tables`` and, where needed, ``anatomy``."""
