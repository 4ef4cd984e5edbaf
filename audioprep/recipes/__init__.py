"""Recipes: YAML files that name a list of commands with their settings."""
