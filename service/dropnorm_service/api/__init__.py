"""The gRPC edge: servicers of a few lines, interceptors, the error catalogue."""
