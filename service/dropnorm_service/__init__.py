"""The dropnorm service: trains what a spec describes, and answers over gRPC."""
