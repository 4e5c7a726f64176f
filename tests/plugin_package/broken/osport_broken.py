"""A plugin that explodes when it is imported."""

raise RuntimeError("this plugin is broken on purpose")
