"""The losses: bounds of the 0-1 step, the lower bound of the 0-1 loss, and losses around other losses."""
