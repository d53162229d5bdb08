"""Many questions at once: suites, workers, the ledger, and gates that say whether a run passes."""
