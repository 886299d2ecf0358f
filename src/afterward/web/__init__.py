"""Jobs as HTTP shows them: their status, their lists, and their streams."""
