"""Driving Jobs to an answer: finals, tuning, paired blocks, and the proof made of them."""
