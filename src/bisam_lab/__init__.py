"""The laboratory: trains, compares and reports sharpness-aware methods with paired seeds and intervals."""
