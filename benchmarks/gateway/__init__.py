"""The gateway's speed beside its peers', and what recording costs."""
