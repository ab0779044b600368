"""Methods that propagate relevance by modified backward rules."""
