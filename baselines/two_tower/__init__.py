"""Methods that look into the image tower of a two-tower model."""
