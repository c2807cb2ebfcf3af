"""Files in a folder of this machine."""

__all__ = ["LocalImages"]

from repositories.local.images import LocalImages
