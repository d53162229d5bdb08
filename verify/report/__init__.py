"""Results in the formats that people and programs read: one file per format, each a function of a result's document."""
