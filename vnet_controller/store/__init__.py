"""What the controller remembers: one writer, many readers; durable before it is answered."""
