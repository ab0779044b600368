"""Methods that ask the LVLM itself where its evidence lies."""
