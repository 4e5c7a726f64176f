"""Readers of headers: what a model file says about itself, without its weights."""
