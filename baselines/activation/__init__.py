"""Methods that read hidden states through the language model's head or as a CAM."""
