"""Facts about a model to a model card: metadata that the Hub reads, a page that people read."""
