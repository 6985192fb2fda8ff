"""One command that trains, calibrates and tests every method, and writes the table of results."""
