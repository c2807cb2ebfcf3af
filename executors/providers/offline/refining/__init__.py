"""Pictures changed as words ask, by real operations on pixels.

refine.py    prompt, picture → picture, and what was done to it
reading.py   prompt → steps; lexicon.py and words.py know what each word may mean
layers.py    the picture taken apart: what it shows, and the ground it shows it on
grounds.py   what is behind the subject
layouts.py   shape and place: turned, mirrored, outlined, with a shadow
lettering.py words in the picture
styles.py    the subject drawn again in another manner
recolours.py one palette, or colour, for another
tones.py     every colour alike: warmer, darker, muted
finishes.py  the whole picture at the end, as a print
"""
