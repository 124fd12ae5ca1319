"""The witness's decision, as a plain function of the request and what was cosigned before."""
