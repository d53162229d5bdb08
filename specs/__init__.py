"""What is asked of a network: regions, output conditions, labelled data."""
