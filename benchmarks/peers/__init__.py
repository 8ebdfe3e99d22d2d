"""The same no-op job through other Python job queues, and through this one, by one yardstick.

Each peer runs in an environment of its own, where this project is not installed: what `trial.py` imports keeps to
the standard library, but for the peer itself.
"""
