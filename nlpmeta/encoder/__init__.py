"""Texts to vectors: a pretrained transformer, where its weights come from, and what is cached."""
