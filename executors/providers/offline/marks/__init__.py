"""Logo marks drawn from words: geometry, motifs, compositions, and the raster at the end.

draw.py         subject, theme, style, seed → picture
compositions.py where the motif sits: bare, in a disc, a seal, a shield, repeated around a centre
motifs/         what is drawn: leaf, mountain, cup, …; and abstract signs where no word is known
inks.py         which colour of the theme goes where
shapes.py       polygons in a unit circle
raster.py       polygons → pixels
"""
