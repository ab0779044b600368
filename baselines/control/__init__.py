"""Maps that no model had a part in: what an attribution method has to beat before it has shown anything."""
