"""One style for all pictures: colour-blind safe, opaque for dark pages, and readable in grey.

Colour never stands alone: lines differ by their dashes too, points by their shape, bars and shades by their hatching.
"""

import matplotlib.pyplot as plt

# Now, as a notebook's backend, loaded within `rc_context` below, would lose its setting to show figures when that ends.
plt.switch_backend(plt.get_backend())

# Okabe and Ito's palette without yellow, which vanishes on white.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000")
MARKERS, DASHES, HATCHES = "osD^vP*", ("-", "--", ":", "-."), ("", "//", "..", "xx", "\\\\")
DIVERGING = "RdBu_r"  # blue, white at 0, red
LETTER_COLOURS = (COLOURS[2], COLOURS[0], COLOURS[5], COLOURS[1])  # A green, C blue, G orange, T red
STYLE = {
    "figure.facecolor": "white",  # not transparent: a dark page would swallow the axes
    "axes.facecolor": "white",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.prop_cycle": plt.cycler(color=COLOURS),
    "axes.grid": True,
    "grid.alpha": 0.25,
    "font.size": 10,
    "legend.frameon": False,
    "svg.hashsalt": "attrain",
}
