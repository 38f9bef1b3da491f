"""Batches: what a manifest asks for, what came of it, and how it sounds."""
