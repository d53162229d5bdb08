"""How each kind of figure is drawn on axes of matplotlib, and what becomes of the drawing in a page."""
