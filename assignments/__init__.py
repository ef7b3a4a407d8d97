"""Assignments: nbgrader sources, student versions, judges, and what was tried on them."""
