"""Streams under drift, and online meta-learning."""
