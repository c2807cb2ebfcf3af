"""The fault laboratory: one server on loopback that speaks the vendors' formats, and breaks on command.

It is proven by the vendors' own clients (``test_lab_<vendor>.py``); after that it may stand in for
them. ``python -m tests.executors.providers.lab`` starts it by hand.

``faults.py`` has the words for what can go wrong, ``server.py`` everything that is the same for all
vendors, and one file each the vendors. A vendor's handler answers as the vendor does; the
:class:`~tests.executors.providers.lab.server.Exchange` that it answers through breaks the answer as scripted.
"""

from __future__ import annotations

__all__ = ["VENDORS"]

from tests.executors.providers.lab.fal import FalLab
from tests.executors.providers.lab.jigsawstack import JigsawStackLab
from tests.executors.providers.lab.openai import OpenAILab
from tests.executors.providers.lab.runpod import RunPodLab

#: One line per vendor.
VENDORS = (OpenAILab, FalLab, RunPodLab, JigsawStackLab)
