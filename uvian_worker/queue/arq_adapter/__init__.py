"""Everything that works around arq: without arq this folder goes, and ``worker/settings.py`` with its task.

``arq.lua`` has what our scripts know of arq, ``names`` its keys; neither needs arq to be installed.
"""
