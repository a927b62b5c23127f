"""The house itself: what tests leave behind, what documents say, what is written once."""
