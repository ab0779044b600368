"""What an attribution method is, the registry of methods, and methods x records -> submissions."""
