"""Made-up requests against a real server: it must not die, and must never have to say that the error was its own."""
