"""Methods that optimise a mask over the frame."""
