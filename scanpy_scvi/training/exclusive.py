"""What torch keeps for the whole process is lent to one caller at a time."""

from threading import RLock

TORCH_STATE = RLock()
"""Held while torch's generator or number of threads is not the user's: calls from several threads take turns."""
