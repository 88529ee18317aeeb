"""Uploaded data sets: received, checked, kept by their content, and given back when nobody needs them."""
