"""Gradients of attention weights: one parametric family, of which every method here is a preset."""
