"""How maps are drawn: over images, as letters, words, lines and bars. Knows arrays and matplotlib, no model.

matplotlib is imported where it is used: `import attrain` needs none.
"""
