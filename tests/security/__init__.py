"""Who may read and write what, checked from a list generated out of the catalog."""
