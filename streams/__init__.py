"""BullMQ job events on Kafka: events, the status of every job, its transitions, and alerts."""

__version__ = "0.2.0"
