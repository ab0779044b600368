"""The ground everything stands on: errors, files, versions, settings, processes, the vocabulary and the candidate."""
