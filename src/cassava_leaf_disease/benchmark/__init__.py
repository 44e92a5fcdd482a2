"""How fast a model answers on this machine, and where the time goes: one file a thought, `run` is the verb."""
