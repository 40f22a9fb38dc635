"""Prices, deliveries and reports of a fruit wholesaler."""
