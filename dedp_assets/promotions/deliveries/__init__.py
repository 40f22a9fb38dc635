"""Deliveries of the suppliers: copied whole, loaded with quarantine, and measured."""
