"""The form of an answer: asked for before, enforced while it is sampled, verified after."""

from osport.constrained.output import ConstrainedOutput

__all__ = ["ConstrainedOutput"]
