"""JigsawStack's image generation."""
