"""Colours and letters that the page and the figure share."""

__all__ = ["COLOURS", "DARK", "FONTS", "LIGHT"]

#: Colours of the methods on a light background and on a dark one.
COLOURS = (
    ("#0072b2", "#56b4e9"),
    ("#c94f00", "#ff8f4f"),
    ("#00875f", "#35c79a"),
    ("#b4508c", "#e895c4"),
    ("#9a6b00", "#e0b03c"),
    ("#3f4652", "#c9d1dc"),
    ("#6f52c4", "#b39dff"),
)
#: Colours of everything else, by their names in the style sheet, on light screens, on paper and in the figure.
LIGHT = {
    "paper": "#f5f6f8",
    "card": "#ffffff",
    "ink": "#1b1f26",
    "soft": "#565e6b",
    "line": "#dde1e7",
    "grid": "#e6e9ee",
    "link": "#0b5cad",
    "bad": "#b3261e",
    "bad-paper": "#fdecea",
    "hint": "#eef4fb",
    "good": "#11713f",
}
#: The same on dark screens.
DARK = {
    "paper": "#12151a",
    "card": "#1b1f26",
    "ink": "#e9ecf1",
    "soft": "#a5aebb",
    "line": "#323843",
    "grid": "#2a2f39",
    "link": "#7cb8ff",
    "bad": "#ffb4ab",
    "bad-paper": "#4a1f1c",
    "hint": "#1d2b3a",
    "good": "#63d297",
}
#: Fonts, the first of which that is there is taken. matplotlib brings the last one.
FONTS = ("Inter", "Segoe UI", "Roboto", "Helvetica Neue", "Arial", "Liberation Sans", "DejaVu Sans")
