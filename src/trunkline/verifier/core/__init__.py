"""The verifier's decisions: values in, values out, the time as an argument."""
