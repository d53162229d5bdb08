"""From a file or a module to a Network."""
