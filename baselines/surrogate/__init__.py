"""Methods that sample coalitions of regions and fit, weigh or measure what they do to the score."""
