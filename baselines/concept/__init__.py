"""Methods that find concepts in what the vision tower makes of images."""
