"""The witness: cosigns a log's checkpoint only if it continues the last one it cosigned."""
