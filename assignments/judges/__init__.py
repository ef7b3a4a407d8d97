"""Judges: for each assignment its tasks, hidden inputs, right answers and frequent mistakes."""
