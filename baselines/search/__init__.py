"""Methods that search for the regions that matter, one after the other."""
