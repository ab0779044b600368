"""Methods that take the forward pass apart: what each image token writes, by bookkeeping and not by gradients."""
