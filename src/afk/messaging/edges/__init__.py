"""The edges: programs built on the public package, each one an extra that nothing else imports."""
