"""What a call raises when the arm or the client refuses it."""
