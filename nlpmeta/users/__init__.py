"""Thousands of heads on one encoder."""
