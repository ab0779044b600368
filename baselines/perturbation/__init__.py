"""Methods that perturb the frame and score the response."""
