"""Broken, hostile and odd requests to a router, and the bars it must hold whatever comes."""
