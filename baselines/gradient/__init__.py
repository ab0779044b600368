"""Methods built on the score's gradient."""
