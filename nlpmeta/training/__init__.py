"""From a recipe to a meta-trained checkpoint, in one or many processes."""
