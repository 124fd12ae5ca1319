"""The log's decisions: plain functions and state machines over values."""
