"""`python -m dropnorm_service.doctor`: whether a service can run here, and if not, what to do. Changes nothing.

Prints one JSON object a line for each finding; `dropnorm doctor` shows them to people.
"""
