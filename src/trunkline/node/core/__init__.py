"""The node's decisions: plain functions and state machines over values. No I/O, no clock."""
