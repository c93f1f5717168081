"""Networks that the product ships, and the hook for a user's own."""
