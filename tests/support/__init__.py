"""Scripted partners for tests: they speak the real protocols, and misbehave exactly as told."""
