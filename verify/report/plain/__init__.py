"""Plain text for people: what each kind of document looks like, drawn by rich."""
