"""Open Images as a tlx reader; see README.md."""
