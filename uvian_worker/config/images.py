"""Settings of pictures: where they are kept, how large they may be, how they are fetched."""

from __future__ import annotations

__all__ = ["ImageSettings"]

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import BaseModel, Field, SecretStr, field_validator, model_validator

from uvian_worker.config.setting_types import Seconds, WebAddress


class ImageSettings(BaseModel):
    """Images: where they are kept, and how large they may be."""

    images: Literal["local", "supabase"] = "local"
    """Where pictures are stored: a `local` folder, or the bucket `uvian-images` of `supabase`."""
    images_dir: Path = Path(".uvian/images")
    """Folder of the local image store."""
    images_url: WebAddress | None = None
    """The URL under which a gateway serves that folder; without it signed URLs are `file:` paths."""
    images_secret: SecretStr = SecretStr("")
    """Signs the URLs of the local image store; required with `images_url`."""
    image_max_bytes: Annotated[int, Field(gt=0)] = 32 * 1024 * 1024
    """Largest file accepted from a provider or a user."""
    image_max_pixels: Annotated[int, Field(gt=0)] = 4096 * 4096
    """Largest picture accepted, in pixels."""
    image_max_seconds: Annotated[float, Field(ge=0.25, le=60)] = 1.5
    """CPU time to decode the largest picture; smaller ones get less. Raise it on slow machines."""
    fetch_http: bool = False
    """Fetch pictures from `http://` URLs too, not only from `https://`."""
    fetch_timeout: Seconds = 20.0
    """Time for one picture from a URL of a user, redirects included."""

    @field_validator("images_dir")
    @classmethod
    def _absolute(cls, value: Path) -> Path:
        return value.expanduser().resolve()

    @model_validator(mode="after")
    def _images_are_signed(self) -> Self:
        if self.images_url and len(self.images_secret.get_secret_value()) < 16:
            raise ValueError(
                "UVIAN_IMAGES_SECRET needs at least 16 characters when UVIAN_IMAGES_URL is set"
            )
        return self
