"""From the buffer to the server: delivery.Delivery is the loop, outcome.decide() says what an answer means."""
