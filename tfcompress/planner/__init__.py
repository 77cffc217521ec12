"""`compress`: say how small, how fast and how good; the methods are chosen by measuring."""
