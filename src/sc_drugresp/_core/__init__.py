"""Ground: names of slots, settings, messages, downloads. Imports nothing else of this package."""
