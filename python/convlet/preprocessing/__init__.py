"""Keras' `preprocessing`: images that are changed and standardised on their way into training."""

from convlet.preprocessing import image

__all__ = ["image"]
