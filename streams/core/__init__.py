"""The rules: what an event means for a job. Pure: standard library only, no clock, no I/O."""
