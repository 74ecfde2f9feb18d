"""The reference pages, made from the objects that they describe."""
