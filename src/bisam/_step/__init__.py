"""One step: the passes, what is saved before them, the climb, and what comes back."""
