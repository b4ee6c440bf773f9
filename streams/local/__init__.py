"""A real Kafka and Valkey from PyPI wheels (extra `local`), for the demo and the tests: no Docker, no root, no Java."""
