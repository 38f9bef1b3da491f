"""What the engine does otherwise where sessions share a journal: rows may be another's, and slots are the rows'."""
