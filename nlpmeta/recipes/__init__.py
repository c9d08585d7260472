"""Recipes: everything that a meta-training run depends on, in one checked file."""

from nlpmeta.recipes.files import load_recipe
from nlpmeta.recipes.schema import Recipe

__all__ = ["Recipe", "load_recipe"]
