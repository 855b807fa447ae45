"""A scene for every coroutine that a user can call."""

from . import bus, holding, port, receiving, sending
from .registry import SCENES, Scene

__all__ = ["SCENES", "Scene", "bus", "holding", "port", "receiving", "sending"]
