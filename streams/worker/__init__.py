"""The worker: folds `events` into the table `JobStatus`, tells transitions and alerts, and keeps deadlines."""
