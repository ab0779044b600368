"""The causal filter: counterfactual editors, the yes/no reader, verdicts and the funnel (paper, section 3.2)."""
